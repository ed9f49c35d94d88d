"""Deployment target on a container engine's host: a model is replaced without a lost request, and put back.

There are three containers: the live model, the previous model, which is stopped, and HAProxy in front of them. Only
HAProxy is published. Only its configuration records which model is live.
"""

import contextlib
import re
import secrets
import shlex
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

from newsbert.bundle.contract import Contract
from newsbert.core import locks, waiting
from newsbert.core.settings import HostSettings, ServeSettings
from newsbert.deployment.target import DeploymentStatus, Release
from newsbert.errors import ModelError, NewsbertError, ServingError, UsageError
from newsbert.images import run
from newsbert.images.engine.engine import Engine
from newsbert.images.engine.services import Service, Services
from newsbert.serving import verification
from newsbert.serving.client import Client
from newsbert.serving.endpoints import Endpoints

MODEL, PROXY = "model", "proxy"
_PROXY_PORT = 8080
_CONFIG_DIRECTORY, _CONFIG = "/etc/newsbert", "haproxy.cfg"
_PROXY_USER = "65534:65534"
_OLD_WORKERS_S = 30
"""Seconds for which HAProxy serves existing connections after a reload."""

_RELOAD_S = 10
_STOP_S = 30
# See https://docs.haproxy.org/2.6/configuration.html. `idle-close-on-response` closes a client's idle connection only
# after its next response, so that no connection is closed while a request is on its way.
_TEMPLATE = """\
# Written by newsbert deploy.
# before: {before}
global
    maxconn 4096
    hard-stop-after {old_workers_s}s
    log stdout format raw daemon warning

defaults
    mode http
    log global
    option idle-close-on-response
    retry-on conn-failure
    retries 3
    timeout connect 3s
    timeout client 60s
    timeout server 300s
    timeout http-keep-alive 60s

resolvers engine
    nameserver names 127.0.0.11:53

frontend requests
    bind :{proxy_port}
{routes}
"""
_CANDIDATE_ROUTE = """\
    acl is_for_candidate req.hdr({header}) -m str {secret}
    use_backend candidate if is_for_candidate
"""
_LIVE_ROUTE = "    default_backend model\n"
_CANDIDATE_BACKEND = """
backend candidate
    http-response set-header {header} {secret}
    server candidate {name}:{port} resolvers engine init-addr last,libc,none
"""
_LIVE_BACKEND = """
backend model
    server live {name}:{port} resolvers engine init-addr last,libc,none
"""
_CANDIDATE_HEADER = "x-newsbert-candidate"
"""Header that routes requests to the candidate, with a secret of the deployment. The candidate's responses have it
too."""

_CONTRACT_LABEL = "newsbert.contract"
"""Label with the contract that a container's answers were compared with, for a rollback."""


def _render_config(live: Service | None, before: Service | None, candidate: Service | None, secret: str) -> str:
    """Render HAProxy's configuration; the names in it are those that `_make_name` returns."""
    values = {"port": run.CONTAINER_PORT, "header": _CANDIDATE_HEADER, "secret": secret}
    routes = ""
    if candidate is not None:
        routes += _CANDIDATE_ROUTE.format(**values)
    if live is not None:
        routes += _LIVE_ROUTE
    if candidate is not None:
        routes += _CANDIDATE_BACKEND.format(**values, name=candidate.name)
    if live is not None:
        routes += _LIVE_BACKEND.format(**values, name=live.name)
    return _TEMPLATE.format(
        before=before.name if before else "none", old_workers_s=_OLD_WORKERS_S, proxy_port=_PROXY_PORT, routes=routes
    )


class DockerHostTarget:
    """An environment on a container engine.

    Args:
        name: Name of the environment.
        settings: Settings of the environment.
        on_log: Called with log messages.

    Raises:
        EngineError: If no engine answers.
    """

    local = True

    def __init__(self, name: str, settings: HostSettings, on_log: Callable[[str], None]) -> None:
        self._services = Services(name, settings.engine)
        self._name, self._settings, self._log = name, settings, on_log
        self._url = settings.url or Endpoints(settings.host, settings.port).url

    def engine(self) -> Engine:
        """Return the environment's engine."""
        return self._services.engine

    def deployed(self) -> DeploymentStatus | None:
        """Return the status of the deployment, or `None` if nothing is deployed."""
        live, before = self._read_state()
        return None if live is None else self._make_status(live, before)

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Deploy another image; the live model stays until the other one is verified.

        Raises:
            UsageError: If the settings are not possible here.
            ServingError: If it does not give its model's golden answers; then nothing has changed.
            EngineError: If the engine fails.
        """
        if serving.token_auth:
            raise UsageError(
                "each container has tokens of its own, so a client's token would not work for all of them",
                "put authentication before the environment, and leave out [serve] token_auth",
            )
        with self._lock():
            live, before = self._read_state()
            self._clear(live, before)
            self._services.have(release.image)
            self._log(f"starting {release.image} …")
            candidate = self._services.make(
                MODEL,
                release.image,
                self._make_name(),
                environment=run.environment(serving),
                labels={_CONTRACT_LABEL: release.contract.to_json()},
            )
            return self._replace(live, candidate, release.contract, keep=before)

    def back(self) -> DeploymentStatus:
        """Put the previous model back.

        Raises:
            ServingError: If there is no previous model, or it does not give its golden answers any more.
            EngineError: If the engine fails.
        """
        with self._lock():
            live, before = self._read_state()
            if live is None or before is None:
                raise ServingError(
                    f"there is no model before in {self._name}", f"newsbert deploy MODEL --to {self._name}"
                )
            self._log(f"starting {before.image} …")
            try:
                contract = Contract.from_json(before.labels.get(_CONTRACT_LABEL, ""))
            except ValueError as error:
                raise ServingError(
                    f"{before.model} was deployed by another newsbert: {error}",
                    f"newsbert deploy {shlex.quote(before.model)} --to {self._name}",
                ) from error
            return self._replace(live, before, contract, keep=before)

    def _replace(
        self, live: Service | None, candidate: Service, contract: Contract, keep: Service | None
    ) -> DeploymentStatus:
        """Verify a candidate, send all requests to it, and stop the old model; `keep` survives a failure."""
        proxy: Service | None = None
        try:
            candidate.start()
            self._wait(candidate)
            proxy = self._ensure_proxy()
            secret = secrets.token_hex(16)
            self._route(proxy, live, keep, candidate, secret)
            proof = self._verify(candidate, contract, secret)
            self._log("sending requests to it …")
            old_workers = self._route(proxy, candidate, live)
            self._verify(candidate, contract)
        except BaseException:
            with contextlib.suppress(Exception):
                if proxy is not None and live is not None:
                    self._wait_for_old_workers(proxy, self._route(proxy, live, keep))
                elif proxy is not None:
                    proxy.remove()
                if candidate is keep:
                    candidate.halt(1)
                else:
                    candidate.remove()
            raise
        if live is not None:
            self._wait_for_old_workers(proxy, old_workers)
            live.halt(_STOP_S)
        if keep is not None and keep is not candidate:
            keep.remove()
        return self._make_status(candidate, live, proof)

    def _read_state(self) -> tuple[Service | None, Service | None]:
        """Return the live model and the previous one."""
        models = {model.name: model for model in self._services.all(MODEL)}
        proxies = self._services.all(PROXY)
        configuration = proxies[0].get(f"{_CONFIG_DIRECTORY}/{_CONFIG}") if proxies else None
        if configuration is None:
            return None, None
        live, before = re.search(r"server live ([^:\s]+):", configuration), re.search(r"# before: (\S+)", configuration)
        return models.get(live[1]) if live else None, models.get(before[1]) if before else None

    def _clear(self, live: Service | None, before: Service | None) -> None:
        """Remove the containers that a killed deployment left behind."""
        current_ids = {model.id for model in (live, before) if model is not None}
        for model in self._services.all(MODEL):
            if model.id not in current_ids:
                model.remove()

    def _make_name(self) -> str:
        return f"newsbert-{self._name}-{uuid.uuid4().hex[:8]}"

    def _wait(self, candidate: Service) -> None:
        def answers() -> bool:
            if candidate.succeeds(run.PROBE):
                return True
            if candidate.exit_code() is not None or candidate.restarts():
                raise self._make_failure(candidate, "it ended by itself while starting")
            return False

        if not waiting.poll(answers, self._settings.timeout_s, 0.2):
            raise self._make_failure(candidate, f"it does not answer after {self._settings.timeout_s:g} s")

    def _verify(self, candidate: Service, contract: Contract, secret: str | None = None) -> str:
        """Compare the answers to the golden texts, as clients get them through the proxy, with the contract.

        Args:
            candidate: The model.
            contract: Contract of the model, as it is known here.
            secret: Secret that routes requests to the model before all requests go there.

        Raises:
            ServingError: If the model does not answer, or its answers differ.
        """
        client = Client(self._url, headers={_CANDIDATE_HEADER: secret} if secret else {})
        deadline = time.monotonic() + _RELOAD_S
        while True:
            failure: NewsbertError
            try:
                proof = verification.verify(client, contract, candidate.runtime, candidate.model)
                if secret is None or client.response_headers.get(_CANDIDATE_HEADER) == secret:
                    return proof
                failure = ServingError(f"{self._url} goes to another model", "does something before it drop headers?")
            except (ModelError, ServingError) as error:
                failure = error
            # Until the proxy has reloaded, another model may answer, even one of the same name.
            is_candidate = secret is not None and client.response_headers.get(_CANDIDATE_HEADER) == secret
            if (is_candidate and isinstance(failure, ModelError)) or time.monotonic() > deadline:
                raise ServingError(f"{candidate.image} is not taken: {failure.message}", failure.hint) from failure
            time.sleep(0.2)

    def _make_failure(self, candidate: Service, what: str) -> ServingError:
        for line in candidate.logs().splitlines()[-20:]:
            self._log(line)
        return ServingError(f"{candidate.image} is not taken: {what}", "see its log above")

    def _ensure_proxy(self) -> Service:
        proxies = self._services.all(PROXY)
        address = f"{self._settings.host}:{self._settings.port}"
        if proxies and proxies[0].published == address:
            return proxies[0]
        if proxies:
            raise UsageError(
                f"{self._name} answers on {proxies[0].published}, and not on {address}",
                f"give it the old address, or remove its proxy first: docker rm -f {proxies[0].name}",
            )
        self._services.have(self._settings.proxy_image)
        return self._services.make(
            PROXY,
            self._settings.proxy_image,
            f"newsbert-{self._name}-proxy",
            entrypoint=["haproxy"],
            command=["-W", "-db", "-f", f"{_CONFIG_DIRECTORY}/{_CONFIG}"],
            user=_PROXY_USER,
            published=(_PROXY_PORT, self._settings.host, self._settings.port),
            volume=_CONFIG_DIRECTORY,
        )

    def _route(
        self,
        proxy: Service,
        live: Service | None,
        previous: Service | None,
        candidate: Service | None = None,
        secret: str = "",
    ) -> set[str]:
        """Route new requests to a model; return the proxy's processes that serve existing connections.

        Args:
            proxy: The proxy.
            live: The model that gets all requests; no model does, if not set.
            previous: The model before it.
            candidate: The model that gets the requests with the secret.
            secret: The secret.

        Raises:
            ServingError: If the proxy does not reload.
        """
        proxy.put(_CONFIG_DIRECTORY, _CONFIG, _render_config(live, previous, candidate, secret))
        if not proxy.running():
            proxy.start()
            return set()
        old_workers = proxy.processes()
        proxy.send_signal(signal.SIGUSR2)
        # Until it has a new worker, requests go to the old model, which must not be stopped yet.
        if not waiting.poll(lambda: proxy.processes() - old_workers, _RELOAD_S):
            raise ServingError(f"{proxy.name} takes no other model in", f"docker logs {proxy.name}")
        return old_workers

    def _wait_for_old_workers(self, proxy: Service, old: set[str]) -> None:
        """Wait until only the master process is left of the proxy's old processes."""
        waiting.poll(lambda: len(proxy.processes() & old) <= 1, _OLD_WORKERS_S + 5, 0.2)

    def _make_status(self, live: Service, before: Service | None, proof: str | None = None) -> DeploymentStatus:
        return DeploymentStatus(
            self._name,
            live.model,
            live.image,
            live.runtime,
            self._url,
            None if before is None else before.model,
            proof,
        )

    def _lock(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"deploy-{self._name}", f"something is being deployed to {self._name}")
