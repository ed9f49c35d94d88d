"""A stand-in for a Kubernetes API server, as far as kubectl uses it: objects, and the replica sets of deployments.

What a cluster would do besides is not there: pods do not run, and what is executed in one is answered by `execute`.
"""

import base64
import contextlib
import copy
import hashlib
import json
import re
import struct
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kubernetes_validate

RESOURCES = {
    "v1": {"pods": "Pod", "services": "Service", "serviceaccounts": "ServiceAccount"},
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
}
REVISION = "deployment.kubernetes.io/revision"
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


class ApiServer(ThreadingHTTPServer):
    """The server.

    Args:
        execute: Called with a pod and a command; returns the exit code and what it prints.
        answers: Called with a deployment's template; whether its pods become ready.
    """

    daemon_threads = True

    def __init__(
        self, execute: Callable[[dict[str, Any], list[str]], tuple[int, str]], answers: Callable[[dict[str, Any]], bool]
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.execute, self.answers = execute, answers
        self.requests: list[str] = []
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, resource: str, document: dict[str, Any]) -> dict[str, Any]:
        """Store an object; a deployment gets what its controller makes of it."""
        name = document["metadata"]["name"]
        before = self.objects.get((resource, name), {})
        generation = before.get("metadata", {}).get("generation", 0) + (before.get("spec") != document.get("spec"))
        document["metadata"].update(
            generation=generation, uid=f"uid-{name}", resourceVersion=str(len(self.requests) + 1)
        )
        if resource == "deployments":
            self._control(document)
        self.objects[resource, name] = document
        return document

    def _control(self, deployment: dict[str, Any]) -> None:
        template, metadata = deployment["spec"]["template"], deployment["metadata"]
        # What an undo sends back has further fields that do not matter.
        pod_fields = [template["metadata"].get("annotations"), template["spec"]["containers"]]
        digest = hashlib.sha256(json.dumps(pod_fields, sort_keys=True).encode()).hexdigest()[:10]
        name = f"{metadata['name']}-{digest}"
        sets = {key[1]: replica_set for key, replica_set in self.objects.items() if key[0] == "replicasets"}
        revisions = [int(replica_set["metadata"]["annotations"][REVISION]) for replica_set in sets.values()]
        current = metadata.setdefault("annotations", {}).get(REVISION)
        if name not in sets or sets[name]["metadata"]["annotations"][REVISION] != current:
            current = str(max([0, *revisions]) + 1)
        metadata["annotations"][REVISION] = current
        labels = {**template["metadata"]["labels"], "pod-template-hash": digest}
        own = {
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {REVISION: current},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": metadata["name"],
                    "uid": f"uid-{metadata['name']}",
                    "controller": True,
                }
            ],
        }
        labelled = copy.deepcopy(template)
        labelled["metadata"]["labels"] = labels
        self.objects["replicasets", name] = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": name, "uid": f"uid-{name}", **own},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": labelled},
        }
        for set_name, replica_set in sets.items():
            if set_name != name:
                replica_set["spec"]["replicas"] = 0
        ready = self.answers(template)
        if ready:
            for key in [key for key in self.objects if key[0] == "pods"]:
                del self.objects[key]
        self.objects["pods", f"{name}-0"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{name}-0", "namespace": metadata["namespace"], "labels": labels},
            "spec": labelled["spec"],
            "status": {"phase": "Running"},
        }
        deployment["status"] = {
            "observedGeneration": metadata["generation"],
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": int(ready),
            "availableReplicas": int(ready),
            "conditions": []
            if ready
            else [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}],
        }


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, query = self._record()
        if path == "/version":
            self._send_json({"major": "1", "minor": "32", "gitVersion": "v1.32.4"})
        elif path == "/openapi/v3":
            paths = {api: {"serverRelativeURL": f"/openapi/v3/{api}?hash=1"} for api in map(_path, RESOURCES)}
            self._send_json({"paths": paths})
        elif path.startswith("/openapi/v3/"):
            self._send_json(_schema(path.partition("/openapi/v3")[2]))
        elif path == "/api":
            self._send_json({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            groups = [
                {"name": group.partition("/")[0], "versions": [version], "preferredVersion": version}
                for group in RESOURCES
                if "/" in group
                for version in ({"groupVersion": group, "version": group.partition("/")[2]},)
            ]
            self._send_json({"kind": "APIGroupList", "groups": groups})
        elif match := re.fullmatch(r"/apis?/((?:[^/]+/)?v\d)", path):
            resources = [
                {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": _VERBS}
                for name, kind in RESOURCES.get(match[1], {}).items()
            ]
            self._send_json({"kind": "APIResourceList", "groupVersion": match[1], "resources": resources})
        elif path.endswith("/exec"):
            self._execute(path.split("/")[-2], query["command"])
        elif path.endswith("/log"):
            self._raw(b"it cannot\n", "text/plain")
        else:
            resource, name = self._object(path)
            if not resource:
                return self._send_json({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            with self.server.lock:
                if name:
                    document = self.server.objects.get((resource, name))
                    return self._send_json(document) if document else self._missing(resource, name)
                items = self._selected(resource, query)
            if "watch" in query:
                return self._watched(items)
            kind = RESOURCES[_group(path)][resource]
            self._send_json({"kind": f"{kind}List", "apiVersion": _group(path), "metadata": {}, "items": items})
        return None

    def do_PATCH(self) -> None:
        path, _ = self._record()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        resource, name = self._object(path)
        with self.server.lock:
            document = copy.deepcopy(self.server.objects.get((resource, name), {}))
            if self.headers["Content-Type"] == "application/json-patch+json":
                for step in body:
                    target: Any = document
                    *way, last = [part.replace("~1", "/") for part in step["path"].strip("/").split("/")]
                    for part in way:
                        target = target[part]
                    target[last] = step["value"]
            else:
                try:
                    kubernetes_validate.validate(body, "1.37", strict=True)
                except kubernetes_validate.ValidationError as error:
                    return self._send_json(
                        {"kind": "Status", "status": "Failure", "message": str(error), "code": 422}, 422
                    )
                document = {**document, **body, "metadata": {**document.get("metadata", {}), **body["metadata"]}}
            return self._send_json(self.server.put(resource, document))

    def do_DELETE(self) -> None:
        path, _ = self._record()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        resource, name = self._object(path)
        with self.server.lock:
            document = self.server.objects.pop((resource, name), None)
            if resource == "deployments" and document:
                for key in [key for key in self.server.objects if key[0] in {"replicasets", "pods"}]:
                    del self.server.objects[key]
        self._send_json({"kind": "Status", "status": "Success"}) if document else self._missing(resource, name)

    def _record(self) -> tuple[str, dict[str, list[str]]]:
        parts = urllib.parse.urlsplit(self.path)
        self.server.requests.append(f"{self.command} {self.path}")
        return parts.path, urllib.parse.parse_qs(parts.query)

    def _object(self, path: str) -> tuple[str, str]:
        resource, _, name = path.partition("/namespaces/")[2].partition("/")[2].partition("/")
        return resource, name

    def _selected(self, resource: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", [""])[0].split(",") if pair)
        field = query.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
        return [
            document
            for (kind, name), document in self.server.objects.items()
            if kind == resource
            and labels.items() <= document["metadata"].get("labels", {}).items()
            and field in {"", name}
        ]

    def _watched(self, items: list[dict[str, Any]]) -> None:
        self._raw(b"".join(json.dumps({"type": "ADDED", "object": document}).encode() + b"\n" for document in items))

    def _execute(self, pod: str, command: list[str]) -> None:
        """The command's output over a WebSocket, every message behind the number of its channel: v5.channel.k8s.io."""
        code, printed = self.server.execute(self.server.objects["pods", pod], command)
        key = self.headers["Sec-WebSocket-Key"] + _WEBSOCKET
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest())
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept.decode()),
            ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
        ):
            self.send_header(name, value)
        self.end_headers()
        status: dict[str, Any] = {"status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            message = f"command terminated with exit code {code}"
            status = {
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": message,
                "details": {"causes": causes},
            }
        for channel, data in ((2 if code else 1, printed.encode()), (3, json.dumps(status).encode())):
            self._frame(2, bytes([channel]) + data)
        self._frame(8, struct.pack(">H", 1000))
        # Until kubectl has closed, too: what it sends to a connection that is gone may undo what it has not read yet.
        self.connection.settimeout(5)
        with contextlib.suppress(OSError):
            while self.rfile.read1():
                pass
        self.close_connection = True

    def _frame(self, kind: int, data: bytes) -> None:
        first, long = 0x80 | kind, len(data) > 125
        self.wfile.write(struct.pack(">BBH", first, 126, len(data)) if long else bytes([first, len(data)]))
        self.wfile.write(data)
        self.wfile.flush()

    def _send_json(self, document: dict[str, Any], code: int = 200) -> None:
        self._raw(json.dumps(document).encode(), "application/json", code)

    def _missing(self, resource: str, name: str) -> None:
        message = f'{resource} "{name}" not found'
        self._send_json(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "message": message,
                "details": {"name": name, "kind": resource},
                "code": 404,
            },
            404,
        )

    def _raw(self, data: bytes, kind: str = "application/json", code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `requests` has them."""


def _path(version: str) -> str:
    return f"{'apis' if '/' in version else 'api'}/{version}"


def _schema(path: str) -> dict[str, Any]:
    """What kubectl looks for before it leaves the checking of fields to the server."""
    group, _, version = path.strip("/").partition("/")[2].rpartition("/")
    parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths = {
        f"/{kind}": {
            "patch": {
                "parameters": parameters,
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            }
        }
        for kind in RESOURCES[f"{group}/{version}".strip("/")].values()
    }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.32.4"}, "paths": paths}


def _group(path: str) -> str:
    return path.partition("/namespaces/")[0].strip("/").partition("/")[2]
