"""BentoML with adaptive batching, as in its documentation.

bentoml serve bentoml_app:News
"""

import bentoml
import classify


@bentoml.service
class News:
    """Classifies texts."""

    def __init__(self) -> None:
        self.classifier = classify.load()

    @bentoml.api(batchable=True)  # type: ignore[untyped-decorator]
    def predict(self, texts: list[str]) -> list[dict[str, float]]:
        """Classify a batch."""
        return self.classifier(texts)
