"""Deployment target in a Kubernetes cluster: its objects are applied and rolled back by `kubectl`.

The live model is the deployment's revision. The previous revisions are its replica sets; the newest of them can be put
back.
"""

import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from newsbert.bundle.contract import Contract
from newsbert.core import locks
from newsbert.core.processes import ExternalTool
from newsbert.core.settings import ClusterSettings, KubernetesSettings, ServeSettings
from newsbert.deployment import kubernetes_manifests
from newsbert.deployment.target import DeploymentStatus, Release, release_annotations
from newsbert.errors import ServingError, UsageError
from newsbert.images import run
from newsbert.images.contexts import MODEL_PATH
from newsbert.images.engine.engine import Engine
from newsbert.serving import verification
from newsbert.serving.client import Client

_REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
_CONTRACT_ANNOTATION = "newsbert/contract"
"""Annotation of a deployment's pods: the contract that their answers are compared with, for a rollback too."""

_INGRESS_S = 30
"""Seconds that an ingress may take to send requests to new pods only."""

_MIN_DEADLINE_S = 60
"""Minimum deadline of a deployment. It must be longer than the seconds for which a pod must have been ready."""


@dataclass(frozen=True)
class _Revision:
    """A replica set of the deployment."""

    number: int
    replica_set: str
    model: str
    image: str
    runtime: str
    contract: str
    pods: Mapping[str, str]


class KubernetesTarget:
    """An environment in a cluster.

    Args:
        name: Name of the environment.
        settings: Settings of the environment.
        kubernetes_settings: Settings of its objects.
        on_log: Called with log messages.

    Raises:
        ServingError: If `kubectl` is not installed.
    """

    local = False

    def __init__(
        self,
        name: str,
        settings: ClusterSettings,
        kubernetes_settings: KubernetesSettings,
        on_log: Callable[[str], None],
    ) -> None:
        namespace = settings.namespace or kubernetes_settings.namespace
        self._object_settings = dataclasses.replace(kubernetes_settings, namespace=namespace)
        context = [f"--context={settings.context}"] if settings.context else []
        flags = [*context, f"--namespace={namespace}"]
        self._kubectl = ExternalTool("kubectl", flags, f"kubectl {shlex.join(flags)} get deployments")
        self._name, self._settings, self._log = name, settings, on_log
        self._object_name = f"newsbert-{name}"

    def engine(self) -> Engine:
        """Return this machine's engine: a cluster's own engine cannot report an image's labels."""
        return Engine()

    def deployed(self) -> DeploymentStatus | None:
        """Return the status of the deployment, or `None` if nothing is deployed.

        Raises:
            ServingError: If the cluster cannot be queried.
        """
        live, before = _pick_live_and_previous(self._list_revisions())
        return None if live is None else self._make_status(live, before)

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Deploy another image, pod by pod as the new pods answer.

        The rollout is accepted only if the pods answer as in training.

        Raises:
            UsageError: If the settings are not possible here, or the release is not a version that can be deployed.
            NotFoundError: If the model in its image is not known.
            ServingError: If it is not accepted; then the previous model answers again.
        """
        if serving.token_auth:
            raise UsageError(
                "each pod has tokens of its own, so a client's token would not work for all of them",
                "put authentication before the environment, and leave out [serve] token_auth",
            )
        deadline_s = max(self._settings.timeout_s, _MIN_DEADLINE_S)
        annotations = release_annotations(release)
        objects = kubernetes_manifests.manifests(
            self._object_name, release, self._object_settings, serving, annotations, deadline_s
        )
        for manifest in objects:
            if manifest["kind"] == "Deployment":
                manifest["spec"]["template"]["metadata"]["annotations"][_CONTRACT_ANNOTATION] = (
                    release.contract.to_json()
                )
        with self._lock():
            revisions = self._list_revisions()
            self._log(f"applying {len(objects)} objects to namespace {self._object_settings.namespace} …")
            documents = "\n".join(map(json.dumps, objects))  # the server does not validate a list's items
            # Overwrite the fields that `rollout undo` or a user of kubectl has set.
            apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=newsbert", "--filename=-")
            return self._roll_out(revisions, lambda: self._kubectl.run(*apply, text=documents))

    def back(self) -> DeploymentStatus:
        """Put the previous model back.

        Raises:
            ServingError: If there is no previous model, or it does not give its golden answers any more.
        """
        with self._lock():
            revisions = self._list_revisions()
            _, before = _pick_live_and_previous(revisions)
            if before is None:
                raise ServingError(
                    f"there is no model before in {self._name}", f"newsbert deploy MODEL --to {self._name}"
                )
            return self._roll_out(revisions, lambda: self._undo(before))

    def _roll_out(self, known: list[_Revision], change: Callable[[], object]) -> DeploymentStatus:
        """Change the deployment, wait until all its pods are new, and verify the answers of one."""
        try:
            change()
            self._log("waiting until all pods answer …")
            self._wait()
            return self._verify_live()
        except BaseException:
            with contextlib.suppress(Exception):
                self._restore(known)
            raise

    def _verify_live(self) -> DeploymentStatus:
        """Return the status of the live model, if it gives its golden answers."""
        live, before = _pick_live_and_previous(self._list_revisions())
        if live is None:
            raise ServingError(f"somebody removed deployment {self._object_name}", "deploy again")
        return self._make_status(live, before, self._verify(live))

    def _restore(self, known: list[_Revision]) -> None:
        """Restore the state before a change, and remove all that the change created."""
        live, _ = _pick_live_and_previous(known)
        if live is None:
            kinds = "horizontalpodautoscaler,deployment,service,poddisruptionbudget,networkpolicy,serviceaccount"
            self._kubectl.run("delete", kinds, self._object_name, "--ignore-not-found", "--wait=false")
            return
        self._undo(live)
        self._wait()
        # Its replica set would be taken for the previous model.
        failed = {revision.replica_set for revision in self._list_revisions()} - {
            revision.replica_set for revision in known
        }
        for replica_set in failed:
            self._kubectl.run("delete", "replicaset", replica_set, "--wait=false")

    def _undo(self, to: _Revision) -> None:
        self._kubectl.run("rollout", "undo", f"deployment/{self._object_name}", f"--to-revision={to.number}")

    def _wait(self) -> None:
        timeout = f"--timeout={self._settings.timeout_s:g}s"
        try:
            self._kubectl.run("rollout", "status", f"deployment/{self._object_name}", timeout)
        except ServingError as error:
            for line in self._read_logs().splitlines():
                self._log(line)
            raise ServingError(f"not all pods answer: {error.message}", error.hint) from error

    def _read_logs(self) -> str:
        """Return the last log lines of the pods that do not answer, if they can be read."""
        with contextlib.suppress(ServingError):
            return self._kubectl.run("logs", f"--selector=app.kubernetes.io/instance={self._object_name}", "--tail=20")
        return ""

    def _verify(self, live: _Revision) -> str:
        """Compare a pod's answers to the golden texts with the contract of its revision.

        The request is made inside the pod, which requires no ingress. It is also made at the environment's URL, if
        there is one.
        """
        try:
            contract = Contract.from_json(live.contract)
        except ValueError as error:
            raise ServingError(
                f"{live.model} was deployed by another newsbert: {error}",
                f"newsbert deploy {shlex.quote(live.model)} --to {self._name}",
            ) from error
        pods = self._list_items("pods", live.pods)
        names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not names:
            raise ServingError(f"{live.replica_set} has no pod", "kubectl get events")
        url = f"http://127.0.0.1:{run.CONTAINER_PORT}"
        command = ["python", "-m", "newsbert.images.programs.verify", "--answers", url, MODEL_PATH]
        printed = self._kubectl.run("exec", names[0], "--", *command).strip().splitlines()
        try:
            document = json.loads(printed[-1])
        except (IndexError, ValueError, RecursionError) as error:
            raise ServingError(f"pod {names[0]} gives no answers", f"kubectl logs {names[0]}") from error
        proof = verification.compare(document, contract, live.runtime, live.model, f"pod {names[0]}")
        if self._settings.url:
            self._verify_at(self._settings.url, contract, live)
        return proof

    def _verify_at(self, url: str, contract: Contract, live: _Revision) -> None:
        deadline = time.monotonic() + _INGRESS_S
        while True:
            try:
                verification.verify(Client(url), contract, live.runtime, live.model)
                return
            except ServingError:  # an ingress that does not know the new pods yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def _list_revisions(self) -> list[_Revision]:
        """Return the deployment's current revision, followed by the previous ones, the newest first."""
        text = self._kubectl.run("get", "deployment", self._object_name, "--ignore-not-found", "--output=json")
        if not text.strip():
            return []
        deployment = json.loads(text)
        replica_sets = self._list_items("replicasets", deployment["spec"]["selector"]["matchLabels"])
        revisions = sorted(
            (_parse_revision(replica_set) for replica_set in replica_sets), key=lambda revision: -revision.number
        )
        live = _read_number(deployment)
        return [revision for revision in revisions if revision.number == live] + [
            revision for revision in revisions if revision.number != live
        ]

    def _list_items(self, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        items: list[dict[str, Any]] = json.loads(
            self._kubectl.run("get", kind, f"--selector={selector}", "--output=json")
        )["items"]
        return items

    def _make_status(self, live: _Revision, before: _Revision | None, proof: str | None = None) -> DeploymentStatus:
        url = self._settings.url or f"http://{self._object_name}.{self._object_settings.namespace}"
        return DeploymentStatus(
            self._name, live.model, live.image, live.runtime, url, before.model if before else None, proof
        )

    def _lock(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"deploy-{self._name}", f"something is being deployed to {self._name}")


def _pick_live_and_previous(revisions: list[_Revision]) -> tuple[_Revision | None, _Revision | None]:
    """Return the live revision and the previous one."""
    live, before, *_ = (*revisions, None, None)
    return live, before


def _read_number(manifest: Mapping[str, Any]) -> int:
    return int(manifest["metadata"].get("annotations", {}).get(_REVISION_ANNOTATION, 0))


def _parse_revision(replica_set: Mapping[str, Any]) -> _Revision:
    template = replica_set["spec"]["template"]
    annotations = template["metadata"].get("annotations", {})
    image = template["spec"]["containers"][0]["image"]
    model, runtime = annotations.get("newsbert/model", image), annotations.get("newsbert/runtime", "")
    labels = replica_set["spec"]["selector"]["matchLabels"]
    contract = annotations.get(_CONTRACT_ANNOTATION, "")
    return _Revision(
        _read_number(replica_set), replica_set["metadata"]["name"], model, image, runtime, contract, labels
    )
