"""A stand-in for Cloud Run's API, as far as gcloud uses it: services and their revisions, which are always ready."""

import copy
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

API = "serving.knative.dev/v1"
CONDITIONS = ("Ready", "ConfigurationsReady", "RoutesReady")


class CloudRunServer(ThreadingHTTPServer):
    """The server.

    Args:
        urls: Where revisions answer, by the model that they were made of.

    Attributes:
        services: What there is, by name.
        revisions: What there is and was, by name.
        requests: Their methods and paths so far.
    """

    daemon_threads = True

    def __init__(self, urls: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.services: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, dict[str, Any]] = {}
        self.urls = urls
        self.requests: list[str] = []
        self.lock = threading.RLock()

    def environment(self, directory: Path) -> dict[str, str]:
        """What has gcloud use this server: as a proxy, since it puts the region before any host's name.

        Args:
            directory: For gcloud's own files.
        """
        return {
            "CLOUDSDK_CONFIG": str(directory),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": "http://run.test/",
            "CLOUDSDK_PROXY_TYPE": "http_no_tunnel",
            "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
            "CLOUDSDK_PROXY_PORT": str(self.server_port),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "1",
            "CLOUDSDK_CORE_CHECK_GCE_METADATA": "0",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
        }

    def put(self, service: dict[str, Any]) -> dict[str, Any]:
        """Store a service, make the revision of its template, and route traffic by its specification."""
        name, metadata = service["metadata"]["name"], service["metadata"]
        before = self.services.get(name)
        metadata["generation"] = (before["metadata"]["generation"] if before else 0) + 1
        metadata.update(uid=f"uid-{name}", resourceVersion=str(metadata["generation"]), selfLink=f"/{name}")
        template = copy.deepcopy(service["spec"]["template"])
        revision = template["metadata"]["name"]
        self.revisions.setdefault(
            revision,
            {
                "apiVersion": API,
                "kind": "Revision",
                "metadata": {**template["metadata"], "labels": {"serving.knative.dev/service": name}},
                "spec": template["spec"],
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
        )
        service["status"] = {
            "observedGeneration": metadata["generation"],
            "url": self._url(service["spec"]["traffic"]),
            "latestReadyRevisionName": revision,
            "latestCreatedRevisionName": revision,
            "conditions": [{"type": kind, "status": "True"} for kind in CONDITIONS],
            "traffic": [
                {**target, **({"url": self._address(target["revisionName"])} if target.get("tag") else {})}
                for target in service["spec"]["traffic"]
            ],
        }
        self.services[name] = service
        return service

    def _address(self, revision: str) -> str:
        return self.urls[self.revisions[revision]["metadata"]["annotations"]["newsbert/model"]]

    def _url(self, traffic: list[dict[str, Any]]) -> str:
        return next(self._address(target["revisionName"]) for target in traffic if target.get("percent") == 100)


class _Handler(BaseHTTPRequestHandler):
    server: CloudRunServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, name, _ = self._record()
        with self.server.lock:
            documents = {"services": self.server.services, "revisions": self.server.revisions}.get(kind, {})
            if not name:
                self._send_json(
                    {"apiVersion": API, "kind": f"{kind.capitalize()[:-1]}List", "items": list(documents.values())}
                )
            elif name in documents:
                self._send_json(documents[name])
            else:
                self._missing(name)

    def do_POST(self) -> None:
        self._put()

    def do_PUT(self) -> None:
        self._put()

    def _put(self) -> None:
        self._record()
        service = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self._send_json(self.server.put(service))

    def do_DELETE(self) -> None:
        _, name, _ = self._record()
        with self.server.lock:
            if self.server.services.pop(name, None) is None:
                self._missing(name)
            else:
                self._send_json({"kind": "Status", "status": "Success"})

    def _record(self) -> tuple[str, str, dict[str, list[str]]]:
        parts = urllib.parse.urlsplit(self.path)
        self.server.requests.append(f"{self.command} {self.path}")
        kind, _, name = parts.path.partition("/namespaces/")[2].partition("/")[2].partition("/")
        return kind, name, urllib.parse.parse_qs(parts.query)

    def _send_json(self, document: dict[str, Any], code: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _missing(self, name: str) -> None:
        self._send_json({"error": {"code": 404, "status": "NOT_FOUND", "message": f"{name} does not exist"}}, 404)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `requests` has them."""
