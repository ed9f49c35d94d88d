"""Accounts of a tracking server: what one account cannot do to what another has made, and nobody without one."""

import base64
import concurrent.futures
import http.client
import importlib.util
import json
import re
import sqlite3
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import mlflow_routes
from tests.support.cli import long

pytestmark = pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="needs newsbert[tracking]")

_READING = {"GET", "HEAD", "OPTIONS"}
_PUBLIC = re.compile(r"/(health|version|favicon\.ico|static-files/.*|(ajax-)?api/\d\.\d/mlflow/server-info)")
_MODEL, _EXPERIMENT = "AlicesModel", "alices"


@dataclass(frozen=True)
class Server:
    """A server with accounts that is shared by the tests of this file."""

    directory: Path
    url: str
    passwords: dict[str, str]
    routes: list[tuple[str, str]]

    def call(
        self, method: str, path: str, body: Any = None, user: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send a request as it stands: no client between that would tidy up its path."""
        if user is not None:
            token = base64.b64encode(f"{user}:{self.passwords[user]}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        if content is not None and not isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(100_000)
        finally:
            connection.close()

    def newsbert(self, *arguments: str) -> dict[str, Any]:
        """Run a command of `newsbert tracking` on the server's machine."""
        return _newsbert(self.directory, *arguments)

    def ask(self, method: str, path: str, body: Any, user: str) -> dict[str, Any]:
        """Send a request that must be answered."""
        status, answer = self.call(method, path, body, user)
        assert status == 200, (path, status, answer)
        document: dict[str, Any] = json.loads(answer or b"{}")
        return document

    def rows(self) -> dict[str, set[str]]:
        """Every row of the database but those of accounts, by table."""
        with sqlite3.connect(f"file:{self.directory}/tracking/mlflow.db?mode=ro", uri=True) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {table: {repr(row) for row in connection.execute(f'SELECT * FROM "{table}"')} for table in tables}

    def files(self) -> dict[str, bytes]:
        """Every artifact."""
        place = self.directory / "tracking" / "artifacts"
        return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def _newsbert(directory: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "newsbert", "tracking", *arguments, "--directory", "tracking", "--json"]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("accounts")

    listing = subprocess.run(
        [sys.executable, "-W", "ignore", mlflow_routes.__file__, str(directory)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    started = _newsbert(directory, "up", "--detach", "--auth", "--port", "0", "--workers", "1")
    passwords = {name: _newsbert(directory, "user", name)["password"] for name in ("alice", "bob")}
    yield Server(
        directory,
        started["url"],
        {"admin": started["admin_password"], **passwords},
        [(method, rule) for method, rule in json.loads(listing.stdout)],
    )
    _newsbert(directory, "down")


@pytest.fixture(scope="module")
def alices(server: Server) -> dict[str, Any]:
    return _make(server)


def _make(server: Server) -> dict[str, Any]:
    """Something of every kind that alice has made; what it is called by, by the names that MLflow's routes use."""
    api, api3 = "/api/2.0/mlflow", "/api/3.0/mlflow"

    def post(path: str, **body: Any) -> dict[str, Any]:
        return server.ask("POST", path, body, "alice")

    experiment = post(f"{api}/experiments/create", name=_EXPERIMENT)["experiment_id"]
    run = post(f"{api}/runs/create", experiment_id=experiment, start_time=1)["run"]["info"]["run_id"]
    post(f"{api}/runs/log-metric", run_id=run, key="accuracy", value=0.5, timestamp=1, step=0)
    post(f"{api}/runs/log-parameter", run_id=run, key="epochs", value="1")
    post(f"{api}/runs/set-tag", run_id=run, key="newsbert.model_id", value="hers")
    model = post(f"{api}/logged-models", experiment_id=experiment, name="model", source_run_id=run)["model"]["info"]
    post(f"{api}/registered-models/create", name=_MODEL)
    model_id = model["model_id"]
    version = post(f"{api}/model-versions/create", name=_MODEL, source=f"models:/{model_id}", model_id=model_id)
    assert version["model_version"]["version"] == "1"
    post(f"{api}/registered-models/alias", name=_MODEL, alias="champion", version="1")
    post(f"{api}/model-versions/set-tag", name=_MODEL, version="1", key="newsbert.image_digest", value="sha256:hers")
    post(f"{api}/registered-models/set-tag", name=_MODEL, key="team", value="hers")
    post(f"{api}/experiments/set-experiment-tag", experiment_id=experiment, key="team", value="hers")
    trace = post(
        f"{api3}/traces",
        trace={
            "trace_info": {
                "trace_id": "tr-00000000000000000000000000000001",
                "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
                "request_time": "2026-01-01T00:00:00Z", "state": "OK",
            }
        },
    )["trace"]["trace_info"]["trace_id"]  # fmt: skip
    dataset = post(f"{api3}/datasets/create", name="hers", experiment_ids=[experiment])["dataset"]["dataset_id"]
    post(f"{api3}/scorers/register", experiment_id=experiment, name="hers", serialized_scorer="{}")
    path = f"{experiment}/{run}/artifacts/hers.txt"
    status, _ = server.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", b"hers", "alice")
    assert status == 200
    return {
        "experiment_id": experiment, "run_id": run, "model_id": model_id, "trace_id": trace,
        "dataset_id": dataset, "artifact_path": path,
    }  # fmt: skip


def _body(rule: str, alices: dict[str, Any]) -> dict[str, Any]:
    """A request that names hers wherever MLflow's routes have a name for it."""
    experiment, run, model, trace = (alices[name] for name in ("experiment_id", "run_id", "model_id", "trace_id"))
    name = next((name for part, name in _NAMES.items() if part in rule), _MODEL)
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    return {
        "experiment_id": experiment, "experiment_ids": [experiment], "run_id": run, "run_uuid": run,
        "model_id": model, "trace_id": trace, "trace_ids": [trace], "request_id": trace, "request_ids": [trace],
        "dataset_id": alices["dataset_id"], "name": name, "new_name": "taken", "version": "1", "alias": "champion",
        "key": "newsbert.image_digest" if "model-versions" in rule else "team", "value": "taken",
        "tags": [{"key": "team", "value": "taken"}], "status": "FAILED", "stage": "Archived", "description": "taken",
        "source": f"models:/{model}", "path": "hers.txt", "model_json": json.dumps({"run_id": run}),
        "metrics": [{"key": "accuracy", "value": 9, "timestamp": 2, "step": 1}],
        "params": [{"key": "stolen", "value": "taken"}], "timestamp": 2, "step": 1, "timestamp_ms": 2,
        "datasets": [{"dataset": {"name": "x", "digest": "x", "source_type": "x", "source": "x"}}],
        "models": [{"model_id": model, "step": 1}], "max_traces": 10, "max_timestamp_millis": 4_000_000_000_000,
        "trace": {"trace_info": {"trace_id": trace, "trace_location": location, "state": "ERROR"}},
        "assessment": {"assessment_name": "x", "trace_id": trace, "feedback": {"value": 1}}, "update_mask": "feedback",
        "records": json.dumps([{"inputs": {"x": "taken"}}]), "dataset_record_ids": ["x"],
        "serialized_scorer": "{\"taken\": 1}", "username": "bob", "password": "taken-password-1", "is_admin": True,
        "resource_type": "experiment", "resource_id": experiment, "resource_pattern": experiment,
        "permission": "MANAGE",
        "role_name": "taken", "url": "https://example.org/",
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
        "archive_existing_versions": True, "prompt_versions": [{"name": name, "version": "1"}], "title": "x",
        "query": "mutation { mlflowDeleteRun { __typename } }",
    }  # fmt: skip


_NAMES = {"experiments": _EXPERIMENT, "scorers": "hers", "datasets": "hers"}
_PLACEHOLDER = re.compile(r"[<{](?:path:)?(?P<name>\w+)(?::path)?[>}]")


def _path(rule: str, alices: dict[str, Any]) -> str:
    known = {**alices, "request_id": alices["trace_id"], "key": "team", "tag_key": "team"}
    return _PLACEHOLDER.sub(lambda match: known.get(match["name"], "x"), rule)


def _storm(server: Server, alices: dict[str, Any], user: str, routes: list[tuple[str, str]]) -> dict[str, int]:
    """Call routes with all that is hers; return what was answered."""

    def send(route: tuple[str, str]) -> tuple[str, int]:
        method, rule = route
        body: Any = b"taken" if method == "PUT" and "artifacts" in rule else _body(rule, alices)
        return f"{method} {rule}", server.call(method, _path(rule, alices), body, user)[0]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = dict(pool.map(send, [route for route in routes if not _removes(route)]))
        return answers | dict(pool.map(send, [route for route in routes if _removes(route)]))


def _removes(route: tuple[str, str]) -> bool:
    return route[0] == "DELETE" or "delete" in route[1]


@pytest.mark.parametrize("kind", ["models", pytest.param("all", marks=long)])
def test_attack_an_account_changes_nothing_of_anothers_by_any_route(
    kind: str, server: Server, alices: dict[str, Any]
) -> None:
    routes = [(method, rule) for method, rule in server.routes if method not in _READING]
    if kind == "models":
        routes = [route for route in routes if _OF_MODELS.match(route[1])]
    assert len(routes) > (300 if kind == "all" else 40)
    rows, files = server.rows(), server.files()
    answers = _storm(server, alices, "bob", routes)
    after = server.rows()
    assert not {table: before - after[table] for table, before in rows.items() if before - after[table]}
    hers = [repr(value) for name, value in alices.items() if name != "artifact_path"] + [repr(_MODEL)]
    added = {
        table: {row for row in table_rows - rows[table] if any(name in row for name in hers)}
        for table, table_rows in after.items()
    }
    assert not {table: table_rows for table, table_rows in added.items() if table_rows}
    assert server.files() == files
    # Hers is hers: the same requests are answered where she sends them, and a grant allows another user one thing.
    changes = [
        ("POST", "/api/2.0/mlflow/runs/set-tag"),
        ("PATCH", "/api/2.0/mlflow/logged-models/<model_id>/tags"),
        ("POST", "/api/2.0/mlflow/model-versions/set-tag"),
        ("POST", "/api/2.0/mlflow/registered-models/alias"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/<path:artifact_path>"),
    ]
    assert {answers[f"{method} {rule}"] for method, rule in changes} == {403}
    granted = ("bob", "--experiment", _EXPERIMENT, "--model", _MODEL)
    assert set(_storm(server, alices, "alice", changes).values()) == {200}
    assert server.newsbert("grant", *granted)["permission"] == "edit"
    assert set(_storm(server, alices, "bob", changes).values()) == {200}
    remove = ("DELETE", "/api/2.0/mlflow/registered-models/delete")
    assert set(_storm(server, alices, "bob", [remove]).values()) == {403}
    server.newsbert("revoke", *granted)
    assert set(_storm(server, alices, "bob", changes).values()) == {403}


_OF_MODELS = re.compile(
    r"/api/2.0/mlflow(/(experiments|runs|logged-models|registered-models|model-versions|users)|-artifacts)/"
)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/2.0/mlflow/experiments/create", {"name": "x", "artifact_location": "file:///etc"}),
        ("/ajax-api/2.0/mlflow/experiments/create", {"name": "x", "artifactLocation": "s3://elsewhere/x"}),
        ("/api/2.0/mlflow/experiments/create", json.dumps({"name": "x", "artifact_location": "mlflow-artifacts:/0"})),
        ("/api/2.0/mlflow/model-versions/create", {"name": "BobsModel", "source": "s3://elsewhere/x"}),
        ("/ajax-api/3.0/mlflow/assistant/message", {"message": "x"}),
        ("/ajax-api/3.0/mlflow/demo/generate", {}),
        ("/api/2.0/mlflow/webhooks", {"name": "x", "url": "https://example.org"}),
        ("/gateway/x/mlflow/invocations", {}),
    ],
)
def test_attack_an_account_does_not_choose_what_the_server_reads_calls_or_runs(
    server: Server, path: str, body: Any
) -> None:
    assert server.call("POST", path, body, "bob")[0] == 403


def _tricks(path: str) -> Iterator[str]:
    """A path as others may read it, who decide less strictly what it is."""
    first, _, rest = path.lstrip("/").partition("/")
    yield path
    yield f"{path}/"
    yield f"/{path}"
    yield f"/./{first}/{rest}"
    yield f"/health/../{first}/{rest}"
    yield f"/static-files/..%2f{first}/{rest}"
    yield f"/%2e/{first}/{rest}"
    yield path.replace("/mlflow", "/%6dlflow", 1)
    yield f"{path};.css"
    yield f"{path}?x=/health"
    yield f"{path}%00"


def test_attack_requests_without_an_account_get_no_answer(server: Server, alices: dict[str, Any]) -> None:
    rules = sorted({(method, _path(rule, alices)) for method, rule in server.routes if "/static-files" not in rule})
    requests = [*rules, *((method, path) for _, path in rules[::20] for method in ("HEAD", "OPTIONS", "TRACE", "X"))]
    secrets = ("/api/2.0/mlflow/runs/search", "/ajax-api/2.0/mlflow/users/create", "/graphql", "/get-artifact")
    requests += [(method, trick) for path in secrets for trick in _tricks(path) for method in ("GET", "POST", "HEAD")]
    requests += [
        ("GET", f"/api/2.0/mlflow-artifacts/artifacts/{trick}") for trick in _tricks(f"/{alices['artifact_path']}")
    ]
    requests = list(dict.fromkeys(requests))
    assert len(requests) > 500
    before, files = server.rows(), server.files()

    def send(route: tuple[str, str]) -> tuple[str, str, int, bytes]:
        headers = {"X-HTTP-Method-Override": "GET", "X-Forwarded-User": "admin", "X-Original-URL": "/health"}
        return *route, *server.call(*route, b"{}" if route[0] == "POST" else None, **headers)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, requests))
    answered = {
        (method, path, status)
        for method, path, status, answer in answers
        if status not in {400, 401, 403, 404, 405, 501}
        and not _PUBLIC.fullmatch(urllib.parse.urlsplit(path).path)
        and not (method == "OPTIONS" and not answer)
    }
    assert not answered
    # No answer has anything of hers.
    assert not [answer for *_, answer in answers if b"hers" in answer or alices["run_id"].encode() in answer]
    assert (server.rows(), server.files()) == (before, files)


@pytest.mark.parametrize("wrong", ["admin:", "admin:password1234", "admin:None", ":", "bob", "bob:\x00", "alice'--:x"])
def test_attack_no_other_password_is_taken(server: Server, wrong: str) -> None:
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    for scheme in ("Basic", "basic", "Bearer"):
        token = base64.b64encode(wrong.encode()).decode()
        assert server.call("GET", path, Authorization=f"{scheme} {token}")[0] == 401
