"""An environment in a Kubernetes cluster: its objects are applied by `kubectl`, and rolled back by it.

What answers is the deployment's revision; the ones before are its replica sets, of which the newest can be put back.
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
from newsbert.images.contexts import ARCHIVE_PATH
from newsbert.images.engine.engine import Engine
from newsbert.serving import verification
from newsbert.serving.client import Client

_REVISION = "deployment.kubernetes.io/revision"
_CONTRACT = "newsbert/contract"
"""Annotation of a deployment's pods: the contract that their answers are compared with, for a rollback too."""

_INGRESS_S = 30
"""Seconds that an ingress may take to send requests to new pods only."""

_LEAST_DEADLINE_S = 60
"""A deployment's own deadline must be longer than the seconds for which a pod must have been ready."""


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
        name: The environment's name.
        settings: Where it is.
        kubernetes_settings: What its objects are like.
        on_log: Called with what is done.

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
        self._objects = dataclasses.replace(kubernetes_settings, namespace=namespace)
        context = [f"--context={settings.context}"] if settings.context else []
        where = [*context, f"--namespace={namespace}"]
        self._kubectl = ExternalTool("kubectl", where, f"kubectl {shlex.join(where)} get deployments")
        self._name, self._settings, self._log = name, settings, on_log
        self._called = f"newsbert-{name}"

    def engine(self) -> Engine:
        """Return this machine's engine: a cluster's own cannot be asked what an image's labels are."""
        return Engine()

    def deployed(self) -> DeploymentStatus | None:
        """What runs; nothing if nothing was deployed.

        Raises:
            ServingError: If the cluster cannot be asked.
        """
        live, before = _two(self._revisions())
        return None if live is None else self._described(live, before)

    def deploy(self, release: Release, serving: ServeSettings) -> DeploymentStatus:
        """Have another image answer: pod after pod, each once it answers, and all only if they answer as in training.

        Raises:
            UsageError: If the settings cannot be here, or it is no version that is to be deployed.
            NotFoundError: If it is not known what answers in its image.
            ServingError: If it is not taken: then what answered answers again.
        """
        if serving.token_auth:
            raise UsageError(
                "each pod has tokens of its own, so who asks could not go on asking",
                "put authentication before the environment, and leave out [serve] token_auth",
            )
        deadline_s = max(self._settings.timeout_s, _LEAST_DEADLINE_S)
        notes = release_annotations(release)
        objects = kubernetes_manifests.manifests(self._called, release, self._objects, serving, notes, deadline_s)
        for manifest in objects:
            if manifest["kind"] == "Deployment":
                manifest["spec"]["template"]["metadata"]["annotations"][_CONTRACT] = release.contract.to_json()
        with self._alone():
            known = self._revisions()
            self._log(f"applying {len(objects)} objects to namespace {self._objects.namespace} …")
            given = "\n".join(map(json.dumps, objects))  # a list's items are not checked by the server itself
            # What `rollout undo` and a person with kubectl have written is ours to write again.
            apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=newsbert", "--filename=-")
            return self._roll(known, lambda: self._kubectl.run(*apply, given=given))

    def back(self) -> DeploymentStatus:
        """Have the model before answer again.

        Raises:
            ServingError: If there is none, or it does not give its own answers any more.
        """
        with self._alone():
            known = self._revisions()
            _, before = _two(known)
            if before is None:
                raise ServingError(
                    f"there is no model before in {self._name}", f"newsbert deploy MODEL --to {self._name}"
                )
            return self._roll(known, lambda: self._undo(before))

    def _roll(self, known: list[_Revision], change: Callable[[], object]) -> DeploymentStatus:
        """Change the deployment, wait until all its pods are new, and have one give its own answers."""
        try:
            change()
            self._log("waiting until all pods answer …")
            self._wait()
            return self._proved()
        except BaseException:
            with contextlib.suppress(Exception):
                self._restore(known)
            raise

    def _proved(self) -> DeploymentStatus:
        """What runs now, if it gives its own answers."""
        live, before = _two(self._revisions())
        if live is None:
            raise ServingError(f"somebody removed deployment {self._called}", "deploy again")
        return self._described(live, before, self._verify(live))

    def _restore(self, known: list[_Revision]) -> None:
        """Have what answered before a change answer, and nothing of the change be left."""
        live, _ = _two(known)
        if live is None:
            kinds = "horizontalpodautoscaler,deployment,service,poddisruptionbudget,networkpolicy,serviceaccount"
            self._kubectl.run("delete", kinds, self._called, "--ignore-not-found", "--wait=false")
            return
        self._undo(live)
        self._wait()
        # It would be taken for the model before.
        failed = {each.replica_set for each in self._revisions()} - {each.replica_set for each in known}
        for each in failed:
            self._kubectl.run("delete", "replicaset", each, "--wait=false")

    def _undo(self, to: _Revision) -> None:
        self._kubectl.run("rollout", "undo", f"deployment/{self._called}", f"--to-revision={to.number}")

    def _wait(self) -> None:
        timeout = f"--timeout={self._settings.timeout_s:g}s"
        try:
            self._kubectl.run("rollout", "status", f"deployment/{self._called}", timeout)
        except ServingError as error:
            for line in self._last_words().splitlines():
                self._log(line)
            raise ServingError(f"not all pods answer: {error.message}", error.hint) from error

    def _last_words(self) -> str:
        """What the pods that do not answer have said last, where that can be found out."""
        with contextlib.suppress(ServingError):
            return self._kubectl.run("logs", f"--selector=app.kubernetes.io/instance={self._called}", "--tail=20")
        return ""

    def _verify(self, live: _Revision) -> str:
        """Compare a pod's answers to the golden texts with the contract of its revision.

        They are asked inside the pod, which no ingress is needed for; and at the environment's URL, where it has one.
        """
        try:
            contract = Contract.from_json(live.contract)
        except ValueError as error:
            raise ServingError(
                f"{live.model} was deployed by another newsbert: {error}",
                f"newsbert deploy {shlex.quote(live.model)} --to {self._name}",
            ) from error
        pods = self._items("pods", live.pods)
        names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not names:
            raise ServingError(f"{live.replica_set} has no pod", "kubectl get events")
        url = f"http://127.0.0.1:{run.CONTAINER_PORT}"
        command = ["python", "-m", "newsbert.images.programs.verify", "--answers", url, ARCHIVE_PATH]
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

    def _revisions(self) -> list[_Revision]:
        """What the deployment is to run, and after it what it ran before, the newest first."""
        text = self._kubectl.run("get", "deployment", self._called, "--ignore-not-found", "--output=json")
        if not text.strip():
            return []
        deployment = json.loads(text)
        sets = self._items("replicasets", deployment["spec"]["selector"]["matchLabels"])
        found = sorted((_revision(each) for each in sets), key=lambda each: -each.number)
        live = _number(deployment)
        return [each for each in found if each.number == live] + [each for each in found if each.number != live]

    def _items(self, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        items: list[dict[str, Any]] = json.loads(
            self._kubectl.run("get", kind, f"--selector={selector}", "--output=json")
        )["items"]
        return items

    def _described(self, live: _Revision, before: _Revision | None, proof: str | None = None) -> DeploymentStatus:
        url = self._settings.url or f"http://{self._called}.{self._objects.namespace}"
        return DeploymentStatus(
            self._name, live.model, live.image, live.runtime, url, before.model if before else None, proof
        )

    def _alone(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"deploy-{self._name}", f"something is being deployed to {self._name}")


def _two(revisions: list[_Revision]) -> tuple[_Revision | None, _Revision | None]:
    """What answers, and the model before it."""
    live, before, *_ = (*revisions, None, None)
    return live, before


def _number(found: Mapping[str, Any]) -> int:
    return int(found["metadata"].get("annotations", {}).get(_REVISION, 0))


def _revision(replica_set: Mapping[str, Any]) -> _Revision:
    template = replica_set["spec"]["template"]
    notes = template["metadata"].get("annotations", {})
    image = template["spec"]["containers"][0]["image"]
    model, runtime = notes.get("newsbert/model", image), notes.get("newsbert/runtime", "")
    labels = replica_set["spec"]["selector"]["matchLabels"]
    contract = notes.get(_CONTRACT, "")
    return _Revision(_number(replica_set), replica_set["metadata"]["name"], model, image, runtime, contract, labels)
