"""An environment on Google's Cloud Run: a service whose revisions are models, replaced by `gcloud`.

A new revision is proved at an address of its own, before requests go to it. Which one answers, and which did before,
stand in the tags of the service's traffic.
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
"""Cloud Run gives an instance ten seconds to stop."""

_PROBE_S = 3
_CONCURRENCY = 64
"""Requests that an instance is given at a time: as many as its model answers together."""


class CloudRun:
    """An environment on Cloud Run.

    Args:
        name: The environment's name.
        settings: Where it is.
        tracking_uri: The tracking server, which has the models' golden texts.
        on_log: Called with what is done.

    Raises:
        ServingError: If `gcloud` is not installed.
    """

    local = False

    def __init__(
        self, name: str, settings: CloudRunSettings, tracking_uri: str | None, on_log: Callable[[str], None]
    ) -> None:
        where = {"project": settings.project, "region": settings.region}
        # In this order: gcloud wants flags that all its commands have behind the command's name or before it.
        self._where = [f"--{flag}={value}" for flag, value in where.items() if value]
        self._gcloud = ExternalTool("gcloud", ["--quiet", "--format=json"], "gcloud run services list")
        self._name, self._settings, self._tracking_uri, self._log = name, settings, tracking_uri, on_log
        self._service = f"newsbert-{name}"

    def engine(self) -> Engine:
        """Return this machine's engine: Cloud Run cannot be asked what an image's labels are."""
        return Engine()

    def deployed(self) -> DeploymentStatus | None:
        """What runs; nothing if nothing was deployed.

        Raises:
            ServingError: If Google cannot be asked.
        """
        service = self._described()
        return None if service is None or LIVE not in _tags(service) else self._deployed(service)

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Have another image answer, once a revision of it has given its own answers at its own address.

        Raises:
            UsageError: If the settings cannot be here, or it is no version that is to be deployed.
            NotFoundError: If it is not known what answers in its image.
            ServingError: If it is not taken; then nothing has changed.
        """
        if serving.token_auth:
            raise UsageError(
                "each instance has tokens of its own, so who asks could not go on asking",
                "Cloud Run asks who calls; leave out [serve] token_auth",
            )
        notes = release_annotations(release)
        with self._alone():
            service = self._described()
            tags = {} if service is None else _tags(service)
            revision = f"{self._service}-{uuid.uuid4().hex[:8]}"
            self._log(f"starting {release.image} …")
            try:
                self._replace(self._manifest(revision, release.image, notes, serving, tags))
                return self._take(revision, tags)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._give_up(revision, tags)
                raise

    def back(self) -> DeploymentStatus:
        """Have the model before answer again.

        Raises:
            ServingError: If there is none, or it does not give its own answers any more.
        """
        with self._alone():
            service = self._described()
            tags = {} if service is None else _tags(service)
            if BEFORE not in tags:
                raise ServingError(
                    f"there is no model before in {self._name}", f"newsbert deploy MODEL --to {self._name}"
                )
            return self._take(tags[BEFORE], tags)

    def _take(self, revision: str, tags: dict[str, str]) -> DeploymentStatus:
        """Prove a revision at its own address, then send all requests to it."""
        service = self._described()
        if service is None:
            raise ServingError(f"somebody removed service {self._service}", "deploy again")
        notes = self._notes(revision)
        traffic = service["status"].get("traffic", [])
        url = next((each["url"] for each in traffic if each.get("revisionName") == revision and "url" in each), None)
        if url is None:
            raise ServingError(f"{revision} has no address", f"gcloud run services describe {self._service}")
        self._log(f"asking {notes['newsbert/model']} on {url} …")
        proof = self._prove(notes, url)
        if tags.get(LIVE) != revision:
            self._log("sending requests to it …")
            now = {LIVE: revision, **({BEFORE: tags[LIVE]} if LIVE in tags else {})}
            written = ",".join(f"{tag}={each}" for tag, each in now.items())
            self._run("update-traffic", self._service, f"--to-revisions={revision}=100", f"--set-tags={written}")
            service = self._described() or service
        return self._deployed(service, proof)

    def _give_up(self, revision: str, tags: dict[str, str]) -> None:
        """Remove a revision that is not taken, and the service if it has no other."""
        if LIVE not in tags:
            self._run("delete", self._service)
            return
        written = ",".join(f"{tag}={each}" for tag, each in tags.items())
        self._run("update-traffic", self._service, f"--to-revisions={tags[LIVE]}=100", f"--set-tags={written}")
        # Its newest revision cannot be removed; without a tag it has no address, and the next deployment is newer.

    def _prove(self, notes: dict[str, str], url: str) -> str:
        model = notes["newsbert/model"]
        bundle = Bundle.read(locate.locate(model, tracking_uri=self._tracking_uri).path)
        only_golden = dataclasses.replace(self._settings, acceptance=None)
        return Acceptance(model, bundle, only_golden).ask(url, notes["newsbert/runtime"])

    def _manifest(
        self, revision: str, image: str, notes: dict[str, str], serving: ServeSettings, tags: dict[str, str]
    ) -> dict[str, Any]:
        """The service: requests go where they went, and the new revision has an address of its own."""
        settings = self._settings
        told = run.environment(dataclasses.replace(serving, drain_s=min(serving.drain_s, DRAIN_S)))
        told["NEWSBERT_SERVE_LOG_FORMAT"] = "json"
        scaling = {
            "autoscaling.knative.dev/minScale": str(settings.min_instances),
            "autoscaling.knative.dev/maxScale": str(settings.max_instances),
            "run.googleapis.com/startup-cpu-boost": "true",
        }
        container = {
            "image": image,
            "ports": [{"name": "http1", "containerPort": run.CONTAINER_PORT}],
            "env": [{"name": name, "value": told[name]} for name in sorted(told)],
            "resources": {"limits": {"cpu": settings.cpu, "memory": settings.memory}},
            "startupProbe": {
                "httpGet": {"path": "/ping", "port": run.CONTAINER_PORT},
                "periodSeconds": _PROBE_S,
                "failureThreshold": int(settings.timeout_s // _PROBE_S),
            },
        }
        account = {"serviceAccountName": settings.service_account} if settings.service_account else {}
        new = {"revisionName": revision, "percent": 0 if LIVE in tags else 100, "tag": CANDIDATE}
        kept = [{"revisionName": each, "percent": 100 * (tag == LIVE), "tag": tag} for tag, each in tags.items()]
        return {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": self._service, "annotations": {"run.googleapis.com/ingress": "all"}},
            "spec": {
                "template": {
                    "metadata": {"name": revision, "annotations": {**scaling, **notes}},
                    "spec": {"containerConcurrency": _CONCURRENCY, "containers": [container], **account},
                },
                "traffic": [*kept, new],
            },
        }

    def _replace(self, manifest: dict[str, Any]) -> None:
        with temporary.directory() as directory:
            file = directory / "service.yaml"
            file.write_text(json.dumps(manifest), encoding="utf-8")  # JSON is YAML too
            self._run("replace", str(file))

    def _described(self) -> dict[str, Any] | None:
        found = json.loads(self._run("list", f"--filter=metadata.name={self._service}") or "[]")
        return found[0] if found else None

    def _notes(self, revision: str) -> dict[str, str]:
        """What was kept of the release in a revision."""
        found = json.loads(self._gcloud.run("run", "revisions", "describe", revision, *self._where))
        notes = {key: value for key, value in found["metadata"]["annotations"].items() if key.startswith("newsbert/")}
        return {**notes, "image": found["spec"]["containers"][0]["image"]}

    def _deployed(self, service: dict[str, Any], proof: str | None = None) -> DeploymentStatus:
        tags = _tags(service)
        live = self._notes(tags[LIVE])
        before = self._notes(tags[BEFORE])["newsbert/model"] if BEFORE in tags else None
        url = self._settings.url or service["status"]["url"]
        model, runtime = live["newsbert/model"], live["newsbert/runtime"]
        return DeploymentStatus(self._name, model, live["image"], runtime, url, before, proof)

    def _run(self, *arguments: str) -> str:
        return self._gcloud.run("run", "services", *arguments, *self._where)

    def _alone(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"deploy-{self._name}", f"something is being deployed to {self._name}")


def _tags(service: dict[str, Any]) -> dict[str, str]:
    """The revisions that answer, and did before, by tag."""
    traffic = service["spec"].get("traffic", [])
    return {each["tag"]: each["revisionName"] for each in traffic if each.get("tag") in {LIVE, BEFORE}}
