"""A tracking server that lies: it answers MLflow's routes from a bundle on the disk, as a test overrides them."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RUN_ID = "0123456789abcdef" * 2
MODEL_ID = f"m-{RUN_ID}"
NAME = "Victim"
_TIME = 1_700_000_000_000
_PREFIX = re.compile(r"/(?:ajax-)?api/[23]\.0/")
_FILE = re.compile(r".*/extra_files/(?P<name>.+)")

Answer = dict[str, Any] | Callable[[BaseHTTPRequestHandler], None]


class HostileRegistry:
    """A server whose answers a test may change.

    Attributes:
        url: Where it answers.
        bundle: The bundle whose files it has.
        digest: That bundle's digest.
        answers: By route, such as `mlflow/runs/get`: a document, or a function that writes to the socket itself.
        requests: Paths of the requests so far, with their queries.
        uploads: What was written to it, by name.
    """

    def __init__(self, bundle: Path, digest: str) -> None:
        self.bundle, self.digest = bundle, digest
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.url = ""
        self.info: dict[str, Any] = {
            "run_id": RUN_ID, "run_uuid": RUN_ID, "experiment_id": "1", "status": "FINISHED", "run_name": "run",
            "start_time": _TIME, "end_time": _TIME, "lifecycle_stage": "active", "user_id": "eve",
            "artifact_uri": f"mlflow-artifacts:/1/{RUN_ID}/artifacts",
        }  # fmt: skip
        self.tags = {
            "newsbert.model_id": MODEL_ID,
            "newsbert.bundle_digest": digest,
            "newsbert.data_digest": "0" * 64,
            "mlflow.user": "eve",
        }
        self.version: dict[str, Any] = {
            "name": NAME, "version": "1", "run_id": RUN_ID, "model_id": MODEL_ID, "source": f"models:/{MODEL_ID}",
            "creation_timestamp": _TIME, "last_updated_timestamp": _TIME, "status": "READY",
            "tags": [{"key": "newsbert.bundle_digest", "value": digest}],
        }  # fmt: skip
        self.model: dict[str, Any] = {
            "model_id": MODEL_ID, "experiment_id": "1", "name": "model", "status": "LOGGED_MODEL_READY",
            "artifact_uri": f"mlflow-artifacts:/1/models/{MODEL_ID}/artifacts", "creation_timestamp_ms": _TIME,
            "last_updated_timestamp_ms": _TIME, "source_run_id": RUN_ID,
        }  # fmt: skip

    def answer(self, route: str) -> Answer | None:
        """Return what is at a route, if anything is."""
        if route in self.answers:
            return self.answers[route]
        experiment = {
            "experiment_id": "1", "name": "newsbert", "artifact_location": "mlflow-artifacts:/1",
            "lifecycle_stage": "active",
        }  # fmt: skip
        run = {"info": self.info, "data": {"tags": [{"key": key, "value": self.tags[key]} for key in self.tags]}}
        known: dict[str, Answer] = {
            "mlflow/experiments/search": {"experiments": [experiment]},
            "mlflow/experiments/get-by-name": {"experiment": experiment},
            "mlflow/experiments/get": {"experiment": experiment},
            "mlflow/runs/get": {"run": run},
            "mlflow/runs/search": {"runs": [run]},
            "mlflow/runs/create": {"run": {"info": self.info | {"status": "RUNNING"}, "data": {}}},
            "mlflow/runs/update": {"run_info": self.info},
            "mlflow/model-versions/search": {"model_versions": [self.version]},
            "mlflow/model-versions/create": {"model_version": self.version},
            "mlflow/registered-models/alias": {"model_version": self.version},
            "mlflow/registered-models/get": {"registered_model": {"name": NAME}},
            "mlflow/logged-models": {"model": {"info": self.model, "data": {}}},
            f"mlflow/logged-models/{MODEL_ID}": {"model": {"info": self.model, "data": {}}},
        }
        return known.get(route)


@contextlib.contextmanager
def hostile_registry(bundle: Path, digest: str) -> Iterator[HostileRegistry]:
    """Run such a server until the block ends."""
    registry = HostileRegistry(bundle, digest)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            registry.requests.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            route = _PREFIX.sub("", self.path.partition("?")[0])
            answer, name = registry.answer(route), route.rpartition("/")[2]
            if self.command == "PUT":
                registry.uploads[name] = body
            elif route == "mlflow-artifacts/artifacts":
                answer = {"files": [{"path": upload, "is_dir": False} for upload in registry.uploads]}
            elif answer is None and name in registry.uploads:
                self.send(200, registry.uploads[name])
                return
            if callable(answer):
                with contextlib.suppress(OSError):  # the client has had enough
                    answer(self)
                return
            file = _FILE.fullmatch(route)
            if answer is None and file and (registry.bundle / file["name"]).is_file():
                self.send(200, (registry.bundle / file["name"]).read_bytes())
            elif answer is not None:
                self.send(200, json.dumps(answer).encode())
            else:
                known = route == "health" or self.command in {"POST", "PATCH", "PUT", "DELETE"}
                self.send(200 if known else 404, b"{}")

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

        def send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
