"""Client of TorchServe's management and inference interfaces, over TCP or a unix socket, with tokens."""

import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from newsbert.core import environment, loopback, uris
from newsbert.core.settings import ServeSettings
from newsbert.data.text import NewsItem
from newsbert.errors import BadRequestError, NotFoundError, ServingError
from newsbert.serving import auth, client
from newsbert.serving.protocol import MODEL_HEADER

REGISTER_TIMEOUT_S = 300
"""Timeout of a registration; longer than TorchServe's own wait for the workers."""
TIMEOUT_S = 60
PAGE_MODELS = 100


class ModelServer:
    """A running TorchServe, started by newsbert or not.

    Args:
        management: URL of the management interface, or `unix:` and the path of its socket.
        inference: URL of the inference interface, in the same form.
    """

    def __init__(self, management: str, inference: str) -> None:
        self._management = _Interface(management, "management")
        self._inference = _Interface(inference, "inference")

    def models(self) -> list[dict[str, Any]]:
        """Return the names and archives of all models."""
        models: list[dict[str, Any]] = []
        start: str | None = "0"
        while start:
            page = self._management.ask("GET", "/models", {"limit": PAGE_MODELS, "next_page_token": start})
            models += page["models"]
            start = page.get("nextPageToken")
        return models

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Return the descriptions of all versions of a model; none if there is no such model."""
        try:
            return list(self._management.ask("GET", _make_path("models", name, "all")))
        except NotFoundError:
            return []

    def describe(self, name: str, version: str = "") -> dict[str, Any]:
        """Return the description of a version of a model, by default of the default version.

        Raises:
            NotFoundError: If there is no such version.
        """
        (description,) = self._management.ask("GET", _make_path("models", name, version))
        return dict(description)

    def register(self, archive: Path, name: str, settings: ServeSettings) -> None:
        """Register an archive, and wait until its workers run.

        The server first looks for the archive by its name in the model store. Otherwise it loads the archive from its
        path, if the server's `allowed_urls` permit it.

        Raises:
            ServingError: If the server refuses, or its workers do not start.
        """
        options = {
            "model_name": name,
            "batch_size": settings.batch_size,
            "max_batch_delay": settings.batch_delay_ms,
            "initial_workers": settings.workers,
            "synchronous": "true",
        }
        try:
            self._management.ask("POST", "/models", {"url": archive.name, **options}, timeout_s=REGISTER_TIMEOUT_S)
        except NotFoundError:
            try:
                self._management.ask(
                    "POST", "/models", {"url": uris.as_uri(archive.resolve()), **options}, timeout_s=REGISTER_TIMEOUT_S
                )
            except NotFoundError as error:
                raise ServingError(
                    error.message, f"give the server's model store: -C EXPORT_PATH=DIR; it was {archive.parent}"
                ) from error

    def scale(self, name: str, version: str, workers: int) -> None:
        """Set the number of workers and wait until they run."""
        query = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        self._management.ask("PUT", _make_path("models", name, version), query, timeout_s=REGISTER_TIMEOUT_S)

    def set_default(self, name: str, version: str) -> None:
        """Make a version the default of its model."""
        self._management.ask("PUT", _make_path("models", name, version, "set-default"))

    def unregister(self, name: str, version: str) -> None:
        """Unregister a version, if it exists."""
        try:
            self._management.ask("DELETE", _make_path("models", name, version), timeout_s=REGISTER_TIMEOUT_S)
        except NotFoundError:
            return

    def predict(self, name: str, version: str, items: Sequence[NewsItem]) -> tuple[str, list[dict[str, Any]]]:
        """Return the model's name in the response, and the answers to texts or title/text objects, in their order.

        Raises:
            BadRequestError: If the server refuses an item.
            ServingError: If it cannot answer.
        """
        model_name, answers = "", []
        for chunk in client.chunks(items):
            path = _make_path("predictions", name, version)
            response, headers = self._inference.exchange("POST", path, body=client.body(chunk))
            model_name = urllib.parse.unquote(headers.get(MODEL_HEADER, ""))
            if not isinstance(response, list) or len(response) != len(chunk):
                raise ServingError(f"{name} answers in another form than a newsbert model", "check the deployment")
            answers += response
        return model_name, answers

    def explain(self, name: str, version: str, items: Sequence[NewsItem]) -> list[dict[str, Any]]:
        """Return the server's answers to texts or title/text objects, with explanations.

        Raises:
            BadRequestError: If the server refuses an item.
            ServingError: If it cannot answer.
        """
        explained = client.explained_items(items)
        return [answer for item in explained for answer in self.predict(name, version, [item])[1]]


class _Interface:
    """A TorchServe interface, with its own token.

    Args:
        address: Its URL, or `unix:` and a path.
        kind: `management` or `inference`.
    """

    def __init__(self, address: str, kind: str) -> None:
        self._address, self._kind = address.rstrip("/"), kind

    def ask(self, method: str, path: str, query: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> Any:
        """Send a request without a body, and return the JSON of the response."""
        return self.exchange(method, path, query, timeout_s=timeout_s)[0]

    def exchange(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[Any, httpx2.Headers]:
        """Send a request, and return the JSON and the headers of the response.

        Raises:
            NotFoundError: If the server has no such model or version.
            BadRequestError: If the server refuses the content.
            ServingError: If the server does not answer, rejects the token, or fails.
        """
        # With this content type TorchServe reads a registration from the body, not from the query.
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        if (token := _read_token(self._kind)) is not None:
            headers.update([auth.header(token)])
        try:
            with loopback.make_client(self._address) as http:
                response = http.request(method, path, params=query, content=body, headers=headers, timeout=timeout_s)
            if response.is_success:
                return response.json(), response.headers
        except (httpx2.HTTPError, ValueError) as error:
            raise ServingError(
                f"no TorchServe {self._kind} interface answers at {self._address}: {error}",
                "start the server, or give its address: mlflow deployments help -t newsbert",
            ) from error
        raise self._parse_error(response)

    def _parse_error(self, response: httpx2.Response) -> ServingError | NotFoundError | BadRequestError:
        status, (message, kind) = response.status_code, client.describe_failure(response)
        summary = f"TorchServe ({self._kind}, {self._address}) answered {status}: {message}"
        if kind == auth.NOT_TAKEN:
            variable = environment.TOKEN_VARIABLES[self._kind]
            return ServingError(summary, f"export NEWSBERT_KEY_FILE=…/key_file.json of the server, or {variable}=TOKEN")
        if status == 404:
            return NotFoundError(summary, "mlflow deployments list -t newsbert")
        if self._kind == "inference" and status in {400, 413, 415}:
            return BadRequestError(summary, "mend the input")
        return ServingError(summary, "see the server's log")


def _read_token(kind: str) -> str | None:
    """Return the token for an interface, from the environment or from TorchServe's key file.

    Source: https://github.com/pytorch/serve/blob/master/docs/token_authorization_api.md

    Raises:
        ServingError: If the file is not a key file of TorchServe.
    """
    token, file = environment.token(kind), environment.key_file()
    if token is not None or file is None:
        return token
    keys = auth.read(file)
    return keys.management if kind == "management" else keys.inference


def _make_path(*parts: str) -> str:
    return "".join(f"/{urllib.parse.quote(part, safe='')}" for part in parts if part)
