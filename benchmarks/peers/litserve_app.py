"""LitServe, as in its documentation: one text at a time, or batches, which `predict` gets as a list.

python litserve_app.py PORT [MAX_BATCH_SIZE BATCH_TIMEOUT_S]
"""

import sys
from typing import Any

import classify
import litserve


class News(litserve.LitAPI):  # type: ignore[misc]
    """Classifies texts."""

    def setup(self, device: str) -> None:
        """Load the model; every worker calls this once."""
        self.classifier = classify.load()

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the text of a request."""
        return request["text"]

    def predict(self, inputs: Any) -> Any:
        """Classify a text, or a list of texts with batching."""
        return self.classifier(inputs) if isinstance(inputs, list) else self.classifier([inputs])[0]


if __name__ == "__main__":
    port, *batching = sys.argv[1:]
    api = News(max_batch_size=int(batching[0]), batch_timeout=float(batching[1])) if batching else News()
    litserve.LitServer(api).run(host="127.0.0.1", port=int(port), generate_client_file=False)
