"""Deployment target on Google's Cloud Run: a service with one revision per model, replaced by `gcloud`.

A new revision is verified at a URL of its own before it receives requests. The tags of the service's traffic record the
live revision and the previous one.
"""

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from newsbert.bundle.bundle import Bundle
from newsbert.core import locks, temporary
from newsbert.core.processes import ExternalTool
from newsbert.core.settings import CloudRunSettings, ServeSettings
from newsbert.deployment.acceptance import Acceptance
from newsbert.deployment.target import DeploymentStatus, Release, release_annotations
from newsbert.errors import ServingError, UsageError
from newsbert.images import run
from newsbert.images.engine.engine import Engine
from newsbert.tracking import locate

LIVE, BEFORE, CANDIDATE = "live", "before", "candidate"
DRAIN_S = 8.0
"""Maximum drain time: Cloud Run gives an instance ten seconds to stop."""

_PROBE_S = 3
_CONCURRENCY = 64
"""Maximum number of concurrent requests per instance: as many as its model answers together."""


class CloudRun:
    """An environment on Cloud Run.

    Args:
        name: Name of the environment.
        settings: Settings of the environment.
        tracking_uri: URI of the tracking server, which has the models' golden texts.
        on_log: Called with log messages.

    Raises:
        ServingError: If `gcloud` is not installed.
    """

    local = False

    def __init__(
        self, name: str, settings: CloudRunSettings, tracking_uri: str | None, on_log: Callable[[str], None]
    ) -> None:
        location = {"project": settings.project, "region": settings.region}
        # The order matters: gcloud accepts its global flags after the command's name or before it.
        self._location_flags = [f"--{flag}={value}" for flag, value in location.items() if value]
        self._gcloud = ExternalTool("gcloud", ["--quiet", "--format=json"], "gcloud run services list")
        self._name, self._settings, self._tracking_uri, self._log = name, settings, tracking_uri, on_log
        self._service = f"newsbert-{name}"

    def engine(self) -> Engine:
        """Return this machine's engine: Cloud Run cannot report an image's labels."""
        return Engine()

    def deployed(self) -> DeploymentStatus | None:
        """Return the status of the deployment, or `None` if nothing is deployed.

        Raises:
            ServingError: If Cloud Run cannot be queried.
        """
        service = self._find_service()
        return None if service is None or LIVE not in _find_tags(service) else self._make_status(service)

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Deploy another image, once a revision of it gives its golden answers at its own URL.

        Raises:
            UsageError: If the settings are not possible here, or the release is not a version that can be deployed.
            NotFoundError: If the model in its image is not known.
            ServingError: If it is not accepted; then nothing has changed.
        """
        if serving.token_auth:
            raise UsageError(
                "each instance has tokens of its own, so a client's token would not work for all of them",
                "Cloud Run asks who calls; leave out [serve] token_auth",
            )
        annotations = release_annotations(release)
        with self._lock():
            service = self._find_service()
            tags = {} if service is None else _find_tags(service)
            revision = f"{self._service}-{uuid.uuid4().hex[:8]}"
            self._log(f"starting {release.image} …")
            try:
                self._replace(self._make_manifest(revision, release.image, annotations, serving, tags))
                return self._promote(revision, tags)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._discard(revision, tags)
                raise

    def back(self) -> DeploymentStatus:
        """Put the previous model back.

        Raises:
            ServingError: If there is no previous model, or it does not give its golden answers any more.
        """
        with self._lock():
            service = self._find_service()
            tags = {} if service is None else _find_tags(service)
            if BEFORE not in tags:
                raise ServingError(
                    f"there is no model before in {self._name}", f"newsbert deploy MODEL --to {self._name}"
                )
            return self._promote(tags[BEFORE], tags)

    def _promote(self, revision: str, tags: dict[str, str]) -> DeploymentStatus:
        """Verify a revision at its own URL, then send all requests to it."""
        service = self._find_service()
        if service is None:
            raise ServingError(f"somebody removed service {self._service}", "deploy again")
        annotations = self._read_annotations(revision)
        traffic = service["status"].get("traffic", [])
        url = next(
            (route["url"] for route in traffic if route.get("revisionName") == revision and "url" in route), None
        )
        if url is None:
            raise ServingError(f"{revision} has no address", f"gcloud run services describe {self._service}")
        self._log(f"asking {annotations['newsbert/model']} on {url} …")
        proof = self._verify(annotations, url)
        if tags.get(LIVE) != revision:
            self._log("sending requests to it …")
            new_tags = {LIVE: revision, **({BEFORE: tags[LIVE]} if LIVE in tags else {})}
            tag_list = ",".join(f"{tag}={name}" for tag, name in new_tags.items())
            self._run("update-traffic", self._service, f"--to-revisions={revision}=100", f"--set-tags={tag_list}")
            service = self._find_service() or service
        return self._make_status(service, proof)

    def _discard(self, revision: str, tags: dict[str, str]) -> None:
        """Remove a rejected revision, and the service if it has no other."""
        if LIVE not in tags:
            self._run("delete", self._service)
            return
        tag_list = ",".join(f"{tag}={name}" for tag, name in tags.items())
        self._run("update-traffic", self._service, f"--to-revisions={tags[LIVE]}=100", f"--set-tags={tag_list}")
        # The newest revision cannot be removed. Without a tag it has no URL, and the next deployment is newer.

    def _verify(self, notes: dict[str, str], url: str) -> str:
        model = notes["newsbert/model"]
        bundle = Bundle.read(locate.locate(model, tracking_uri=self._tracking_uri).path)
        only_golden = dataclasses.replace(self._settings, acceptance_data=None)
        return Acceptance(model, bundle, only_golden).ask(url, notes["newsbert/runtime"])

    def _make_manifest(
        self, revision: str, image: str, notes: dict[str, str], serving: ServeSettings, tags: dict[str, str]
    ) -> dict[str, Any]:
        """Return the service's manifest: traffic stays unchanged, and the new revision has a URL of its own."""
        settings = self._settings
        variables = run.environment(dataclasses.replace(serving, drain_s=min(serving.drain_s, DRAIN_S)))
        variables["NEWSBERT_SERVE_LOG_FORMAT"] = "json"
        scaling = {
            "autoscaling.knative.dev/minScale": str(settings.min_instances),
            "autoscaling.knative.dev/maxScale": str(settings.max_instances),
            "run.googleapis.com/startup-cpu-boost": "true",
        }
        container = {
            "image": image,
            "ports": [{"name": "http1", "containerPort": run.CONTAINER_PORT}],
            "env": [{"name": name, "value": variables[name]} for name in sorted(variables)],
            "resources": {"limits": {"cpu": settings.cpu, "memory": settings.memory}},
            "startupProbe": {
                "httpGet": {"path": "/ping", "port": run.CONTAINER_PORT},
                "periodSeconds": _PROBE_S,
                "failureThreshold": int(settings.timeout_s // _PROBE_S),
            },
        }
        account = {"serviceAccountName": settings.service_account} if settings.service_account else {}
        candidate = {"revisionName": revision, "percent": 0 if LIVE in tags else 100, "tag": CANDIDATE}
        current = [{"revisionName": name, "percent": 100 * (tag == LIVE), "tag": tag} for tag, name in tags.items()]
        return {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": self._service, "annotations": {"run.googleapis.com/ingress": "all"}},
            "spec": {
                "template": {
                    "metadata": {"name": revision, "annotations": {**scaling, **notes}},
                    "spec": {"containerConcurrency": _CONCURRENCY, "containers": [container], **account},
                },
                "traffic": [*current, candidate],
            },
        }

    def _replace(self, manifest: dict[str, Any]) -> None:
        with temporary.directory() as directory:
            file = directory / "service.yaml"
            file.write_text(json.dumps(manifest), encoding="utf-8")  # JSON is YAML too
            self._run("replace", str(file))

    def _find_service(self) -> dict[str, Any] | None:
        services = json.loads(self._run("list", f"--filter=metadata.name={self._service}") or "[]")
        return services[0] if services else None

    def _read_annotations(self, revision: str) -> dict[str, str]:
        """Return the release's annotations of a revision, and its image."""
        description = json.loads(self._gcloud.run("run", "revisions", "describe", revision, *self._location_flags))
        annotations = {
            key: value for key, value in description["metadata"]["annotations"].items() if key.startswith("newsbert/")
        }
        return {**annotations, "image": description["spec"]["containers"][0]["image"]}

    def _make_status(self, service: dict[str, Any], proof: str | None = None) -> DeploymentStatus:
        tags = _find_tags(service)
        live = self._read_annotations(tags[LIVE])
        before = self._read_annotations(tags[BEFORE])["newsbert/model"] if BEFORE in tags else None
        url = self._settings.url or service["status"]["url"]
        model, runtime = live["newsbert/model"], live["newsbert/runtime"]
        return DeploymentStatus(self._name, model, live["image"], runtime, url, before, proof)

    def _run(self, *arguments: str) -> str:
        return self._gcloud.run("run", "services", *arguments, *self._location_flags)

    def _lock(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"deploy-{self._name}", f"something is being deployed to {self._name}")


def _find_tags(service: dict[str, Any]) -> dict[str, str]:
    """Return the live and the previous revision by tag."""
    traffic = service["spec"].get("traffic", [])
    return {route["tag"]: route["revisionName"] for route in traffic if route.get("tag") in {LIVE, BEFORE}}
