"""A model on a container engine's host: replaced without a request lost, and put back.

Two models' containers, one that answers and the one before it, which is stopped, and HAProxy before them, which alone
is published. Which of the two answers stands in HAProxy's configuration and nowhere else.
"""

import contextlib
import re
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

from newsbert import containers, locks
from newsbert.engine.services import Service, Services
from newsbert.errors import ServingError, UsageError
from newsbert.settings import HostSettings, ServeSettings
from newsbert.target import ARCHIVE, Deployed, Release

MODEL, PROXY = "model", "proxy"
_PROXY_PORT = 8080
_CONFIG_DIRECTORY, _CONFIG = "/etc/newsbert", "haproxy.cfg"
_NOBODY = "65534:65534"
_OLD_WORKERS_S = 30
"""For how long HAProxy goes on with connections that it had before it was told of another model."""

_RELOAD_S = 10
_STOP_S = 30
# Of its documentation: https://docs.haproxy.org/2.6/configuration.html. `idle-close-on-response` keeps a client's idle
# connection until its next answer, in place of closing it just as that request is on its way.
_TEMPLATE = f"""\
# Written by newsbert deploy.
# before: {{before}}
global
    maxconn 4096
    hard-stop-after {_OLD_WORKERS_S}s
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
    bind :{_PROXY_PORT}
    default_backend model

backend model
    server live {{live}}:{containers.CONTAINER_PORT} resolvers engine init-addr last,libc,none
"""


class Host:
    """An environment on a container engine.

    Args:
        name: The environment's name.
        settings: Where it is.
        on_log: Called with what is done.

    Raises:
        EngineError: If no engine answers.
    """

    local = True

    def __init__(self, name: str, settings: HostSettings, on_log: Callable[[str], None]) -> None:
        self._services = Services(name, settings.engine)
        self._name, self._settings, self._log = name, settings, on_log

    def deployed(self) -> Deployed | None:
        """What runs; nothing if nothing was deployed."""
        live, before = self._state()
        return None if live is None else self._described(live, before)

    def deploy(self, release: Release, serving: ServeSettings) -> Deployed:
        """Have another image answer; the one that does goes on until the other has been proved.

        Raises:
            UsageError: If the settings cannot be here.
            ServingError: If it does not give its model's own answers; then nothing has changed.
            EngineError: If the engine does not do its part.
        """
        if serving.token_auth:
            raise UsageError(
                "each container has tokens of its own, so who asks could not go on asking",
                "put authentication before the environment, and leave out [serve] token_auth",
            )
        with self._alone():
            live, before = self._state()
            self._clear(live, before)
            self._services.have(release.image)
            self._log(f"starting {release.image} …")
            candidate = self._services.make(
                MODEL, release.image, self._new_name(), environment=containers.environment(serving)
            )
            return self._replace(live, candidate, keep=before)

    def back(self) -> Deployed:
        """Have the model before answer again.

        Raises:
            ServingError: If there is none, or it does not give its own answers any more.
            EngineError: If the engine does not do its part.
        """
        with self._alone():
            live, before = self._state()
            if live is None or before is None:
                raise ServingError(
                    f"there is no model before in {self._name}", f"newsbert deploy MODEL --to {self._name}"
                )
            self._log(f"starting {before.image} …")
            return self._replace(live, before, keep=before)

    def _replace(self, live: Service | None, candidate: Service, keep: Service | None) -> Deployed:
        """Prove a candidate, send all requests to it, and stop what had them; `keep` survives a failure."""
        pointed: Service | None = None
        try:
            candidate.start()
            self._wait(candidate)
            proof = self._prove(candidate, f"http://127.0.0.1:{containers.CONTAINER_PORT}")
            pointed = self._proxy()
            self._log("sending requests to it …")
            old = self._point(pointed, candidate, live)
            self._prove_through(pointed, candidate)
        except BaseException:
            with contextlib.suppress(Exception):
                if pointed is not None and live is not None:
                    self._wait_for_old_workers(pointed, self._point(pointed, live, keep))
                elif pointed is not None:
                    pointed.remove()
                if candidate is keep:
                    candidate.halt(1)
                else:
                    candidate.remove()
            raise
        if live is not None:
            self._wait_for_old_workers(pointed, old)
            live.halt(_STOP_S)
        if keep is not None and keep is not candidate:
            keep.remove()
        return self._described(candidate, live, proof)

    def _state(self) -> tuple[Service | None, Service | None]:
        """The model that answers, and the one before it."""
        models = {each.name: each for each in self._services.all(MODEL)}
        proxies = self._services.all(PROXY)
        written = proxies[0].get(f"{_CONFIG_DIRECTORY}/{_CONFIG}") if proxies else None
        if written is None:
            return None, None
        live, before = re.search(r"server live ([^:\s]+):", written), re.search(r"# before: (\S+)", written)
        return models.get(live[1]) if live else None, models.get(before[1]) if before else None

    def _clear(self, live: Service | None, before: Service | None) -> None:
        """Remove what a deployment that was killed has left."""
        known = {each.id for each in (live, before) if each is not None}
        for each in self._services.all(MODEL):
            if each.id not in known:
                each.remove()

    def _new_name(self) -> str:
        return f"newsbert-{self._name}-{uuid.uuid4().hex[:8]}"

    def _wait(self, candidate: Service) -> None:
        deadline = time.monotonic() + self._settings.timeout_s
        while not candidate.succeeds(containers.PROBE):
            if candidate.exit_code() is not None or candidate.restarts():
                raise self._failed(candidate, "it ended by itself while starting")
            if time.monotonic() > deadline:
                raise self._failed(candidate, f"it does not answer after {self._settings.timeout_s:g} s")
            time.sleep(0.2)

    def _prove(self, candidate: Service, url: str) -> str:
        """Have the golden texts answered at `url`, asked from inside the candidate's container."""
        code, said = candidate.execute(["python", "-m", "newsbert.proof", "--running", url, ARCHIVE])
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if code != 0:
            raise ServingError(
                f"{candidate.image} is not taken: {last.removeprefix('ERROR: ')}",
                "newsbert build-image MODEL --rebuild, if it was built by an older newsbert",
            )
        return last.removeprefix("proved: ")

    def _prove_through(self, proxy: Service, candidate: Service) -> None:
        """The same, as requests come to it, once the proxy has taken it in."""
        deadline = time.monotonic() + _RELOAD_S
        while True:
            try:
                self._prove(candidate, f"http://{proxy.name}:{_PROXY_PORT}")
                return
            except ServingError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _failed(self, candidate: Service, what: str) -> ServingError:
        for line in candidate.logs().splitlines()[-20:]:
            self._log(line)
        return ServingError(f"{candidate.image} is not taken: {what}", "see its log above")

    def _proxy(self) -> Service:
        found = self._services.all(PROXY)
        wanted = f"{self._settings.host}:{self._settings.port}"
        if found and found[0].published == wanted:
            return found[0]
        if found:
            raise UsageError(
                f"{self._name} answers on {found[0].published}, and not on {wanted}",
                f"give it the old address, or remove its proxy first: docker rm -f {found[0].name}",
            )
        self._services.have(self._settings.proxy_image)
        return self._services.make(
            PROXY,
            self._settings.proxy_image,
            f"newsbert-{self._name}-proxy",
            entrypoint=["haproxy"],
            command=["-W", "-db", "-f", f"{_CONFIG_DIRECTORY}/{_CONFIG}"],
            user=_NOBODY,
            published=(_PROXY_PORT, self._settings.host, self._settings.port),
            volume=_CONFIG_DIRECTORY,
        )

    def _point(self, proxy: Service, live: Service, before: Service | None) -> set[str]:
        """Have the proxy send new requests to a model; return the processes that go on with what they have.

        Raises:
            ServingError: If it does not.
        """
        text = _TEMPLATE.format(live=live.name, before=before.name if before else "none")
        proxy.put(_CONFIG_DIRECTORY, _CONFIG, text)
        if not proxy.running():
            proxy.start()
            return set()
        there = proxy.processes()
        proxy.send_signal(signal.SIGUSR2)
        # Until it has a new worker, requests go where they went: what is there must not be stopped yet.
        deadline = time.monotonic() + _RELOAD_S
        while proxy.processes() <= there:
            if time.monotonic() > deadline:
                raise ServingError(f"{proxy.name} takes no other model in", f"docker logs {proxy.name}")
            time.sleep(0.1)
        return there

    def _wait_for_old_workers(self, proxy: Service, old: set[str]) -> None:
        """Wait until of the proxy's old processes only the one that starts the others is there."""
        deadline = time.monotonic() + _OLD_WORKERS_S + 5
        while len(proxy.processes() & old) > 1 and time.monotonic() < deadline:
            time.sleep(0.2)

    def _described(self, live: Service, before: Service | None, proof: str | None = None) -> Deployed:
        return Deployed(
            self._name,
            live.model,
            live.image,
            live.runtime,
            f"http://{self._settings.host}:{self._settings.port}",
            None if before is None else before.model,
            proof,
        )

    def _alone(self) -> AbstractContextManager[None]:
        return locks.alone(f"deploy-{self._name}", f"something is being deployed to {self._name}")
