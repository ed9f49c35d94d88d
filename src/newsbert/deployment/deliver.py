"""From labelled rows, or a version of the registry, to an environment that has accepted it.

Every step is found again by what went into it, in the engine, the tracking server or the environment, and is then not
done twice: what was killed goes on with the first step that is not done, on this machine or on another.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.bundle.bundle import Bundle
from newsbert.core import config, locks
from newsbert.core.settings import ImageSettings, ServeSettings, TrainSettings
from newsbert.deployment import deploy
from newsbert.deployment.acceptance import Acceptance
from newsbert.errors import NewsbertError, ServingError
from newsbert.images import build, train
from newsbert.tracking import experiment, locate, lookup, registry
from newsbert.tracking.runs import MODEL_ID_TAG
from newsbert.training import base_model, run_dir
from newsbert.training.rows import load_rows
from newsbert.training.run import BUNDLES

if TYPE_CHECKING:
    from newsbert.deployment.target import DeploymentStatus
    from newsbert.images.build import BuildPlan, BuiltImage, Kind
    from newsbert.tracking.client import TrackingClient

DELIVERY_TAG = "newsbert.delivery"
"""Tells of a run what went into it: trainer image, settings, rows and base model."""


@dataclass(frozen=True)
class DeliveryResult:
    """What was delivered.

    Attributes:
        model: The version, `BertModel/7`.
        run_id: The training run, where training was part of it.
        image: The image that answers.
        environment: Where.
        url: Where it answers.
        before: The model before it.
        accepted: What it was asked there, and how it answered.
        done: The steps that had to be done; the others had been before.
    """

    model: str
    run_id: str | None
    image: str
    environment: str
    url: str
    before: str | None
    accepted: str
    done: tuple[str, ...]


class Pipeline:
    """The steps to an environment.

    Args:
        environment: Its name.
        images: Where images are, and how they are built.
        serving: What the image is told.
        tracking_uri: The tracking server; as configured if not given.
        on_log: Called with what is done.
        on_training: Called with what the training prints.

    Raises:
        UsageError: If there is no such environment.
        EngineError: If its engine does not answer.
    """

    def __init__(
        self,
        environment: str,
        images: ImageSettings,
        serving: ServeSettings,
        tracking_uri: str | None,
        on_log: Callable[[str], None],
        on_training: Callable[[bytes], None],
    ) -> None:
        self._target = deploy.environment(environment, tracking_uri, on_log)
        self._environment, self._settings = environment, config.environments()[environment]
        self._images, self._serving, self._tracking_uri = images, serving, tracking_uri
        self._log, self._on_training = on_log, on_training
        self._done: list[str] = []

    def train(self, model_name: str) -> DeliveryResult:
        """Train in the trainer image, register, build and prove the serving image, push, deploy, ask it.

        Args:
            model_name: What the model is registered as.

        Raises:
            NewsbertError: If a step cannot be done; those before it are not done again.
        """
        with self._alone():
            trainer = self._built(None, "trainer")
            run_id = self._trained(trainer.tag)
            version = registry.register(locate.connect(self._tracking_uri), run_id, model_name)
            self._step("register", str(version), version.created)
            self._built(str(version), "serving")
            return self._released(str(version), run_id)

    def release(self, model: str) -> DeliveryResult:
        """Deploy the image of a version, ask it there, and have the one before answer again if it is not accepted.

        Args:
            model: `BertModel/7`, or by an alias, `BertModel@dev`.

        Raises:
            NewsbertError: If there is no such version or image, or it is not accepted.
        """
        with self._alone():
            version = lookup.find_version(locate.connect(self._tracking_uri), model)
            return self._released(f"{version.name}/{version.version}", None)

    def _built(self, model: str | None, kind: "Kind") -> "BuiltImage":
        with build.contexts(model, kind, self._images, self._tracking_uri) as plan:
            for note in plan.notes:
                self._log(f"Note: {note}")
            built = [build.build(context, self._images, self._log) for context in build.pending_contexts(plan)][-1]
            self._step(f"build the {kind} image", built.tag, not built.cached)
            if kind == "serving":
                self._noted(plan, built)
            return built

    def _noted(self, plan: "BuildPlan", built: "BuiltImage") -> None:
        """Have the registry know the image's parts, and its digest where images are pushed."""
        assert plan.located is not None and plan.located.model_name and plan.located.version
        tags = registry.version_tags(locate.connect(self._tracking_uri), plan.located.model_name, plan.located.version)
        for note in build.record(plan.located, built, self._tracking_uri):
            self._log(f"Note: {note}")
        if self._images.repository:
            pushed = build.push(built, plan.located, self._tracking_uri, lambda *_: None)[built.tag]
            self._step("push", pushed, pushed != tags.get(build.DIGEST_TAG))

    def _trained(self, image: str) -> str:
        """The id of the run with what goes into this training: one that there is, or a new one."""
        settings = config.resolve(TrainSettings)
        key = self._key(image, settings)
        tracker = locate.connect(self._tracking_uri, create=True)
        runs = tracker.runs(f"tags.`{DELIVERY_TAG}` = '{key}'", 100)
        for run in runs:
            if run.info.status == "FINISHED" and MODEL_ID_TAG in run.data.tags:
                self._step("train", f"run {run.info.run_id}", False)
                return str(run.info.run_id)
        parent = Path(settings.output).expanduser().parent if settings.output else BUNDLES
        for run in runs:
            directory = run_dir.find(run.info.run_id, parent)
            if directory is not None and run_dir.is_busy(directory):
                raise NewsbertError(
                    f"run {run.info.run_id} of an earlier delivery is still being trained", "wait, then deliver again"
                )
            if directory is not None:
                self._log(f"going on with run {run.info.run_id} …")
                self._train(tracker, run.info.run_id, {"resume": str(directory)}, {})
                return str(run.info.run_id)
        run_id = experiment.create_run(tracker, {DELIVERY_TAG: key})
        self._log(f"training in {image}, run {run_id} …")
        self._train(tracker, run_id, {}, {"MLFLOW_RUN_ID": run_id})
        return run_id

    def _train(
        self, tracker: "TrackingClient", run_id: str, flags: dict[str, str], environment: dict[str, str]
    ) -> None:
        printed = bytearray()
        flags = flags | ({"tracking_uri": self._tracking_uri} if self._tracking_uri else {})
        try:
            code = train.train(flags, ["--json"], printed.extend, self._on_training, environment)
        except BaseException:
            tracker.end_killed(run_id)
            raise
        if code != 0:
            tracker.end_killed(run_id)
            raise NewsbertError(f"the training of run {run_id} failed (exit code {code})", "see what it printed above")
        if json.loads(printed)["stopped_early"]:
            tracker.tag_run(run_id, DELIVERY_TAG, "stopped early")
            raise NewsbertError(
                f"run {run_id} was stopped early, and is not delivered",
                f"newsbert register {run_id}, if it will do; or newsbert deliver again, which trains anew",
            )
        self._step("train", f"run {run_id}", True)

    def _key(self, image: str, settings: TrainSettings) -> str:
        rows = load_rows(settings)
        told = {
            **dataclasses.asdict(settings),
            "output": None,
            "image": image,
            "rows": rows.digest,
            "base_model": base_model.find(settings.base_model).sha256,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _released(self, model: str, run_id: str | None) -> DeliveryResult:
        release = deploy.release(model, self._target, self._images, self._tracking_uri)
        bundle = Bundle.read(locate.locate(model, tracking_uri=self._tracking_uri).path)
        # What it will be asked is read before anything changes.
        acceptance = Acceptance(model, bundle, self._settings)
        there = self._target.deployed()
        changed = there is None or there.image != release.image
        if there is None or changed:
            there = deploy.deploy(release, self._target, self._serving, self._tracking_uri, self._log)
        self._step(f"deploy to {self._environment}", there.image, changed)
        accepted = self._accepted(model, acceptance, there, changed)
        return DeliveryResult(
            model, run_id, there.image, self._environment, there.url, there.before, accepted, tuple(self._done)
        )

    def _accepted(self, model: str, acceptance: Acceptance, deployed: "DeploymentStatus", changed: bool) -> str:
        """Ask the model where it answers now; the registry remembers that it was accepted there.

        Raises:
            ServingError: If it is not accepted; unless it answered before and was accepted, the model before it answers
                again.
        """
        tracker = locate.connect(self._tracking_uri)
        name, _, number = model.rpartition("/")
        tag = f"newsbert.accepted.{self._environment}"
        was_accepted = registry.version_tags(tracker, name, number).get(tag) == deployed.image
        try:
            said = acceptance.ask(self._settings.url or deployed.url, deployed.runtime)
        except NewsbertError as error:
            now = "it goes on answering"
            if deployed.before is not None and (changed or not was_accepted):
                back = deploy.roll_back(self._target, self._tracking_uri, self._log)
                now = f"{back.model} answers again"
            raise ServingError(
                f"{model} is not accepted in {self._environment}: {error.message}; {now}", error.hint
            ) from error
        self._step("accept", said, True)
        if not was_accepted:
            registry.tag_version(tracker, name, number, tag, deployed.image)
        return said

    def _step(self, step: str, result: str, done: bool) -> None:
        if done:
            self._done.append(step)
        self._log(f"{step}: {result}" + ("" if done else "  (was done)"))

    def _alone(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"deliver-{self._environment}", f"something is being delivered to {self._environment}")
