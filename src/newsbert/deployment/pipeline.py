"""The pipeline from labelled rows, or from a version of the registry, to an environment that has accepted the model.

Every step is identified by its inputs. Its result is looked up in the engine, the tracking server or the environment,
and a step that is done is not repeated. A killed pipeline resumes at the first step that is not done, on this machine
or on another.
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
from newsbert.tracking import experiment, locate, references, registry
from newsbert.tracking.runs import MODEL_ID_TAG
from newsbert.training import base_model, run_dir
from newsbert.training.rows import load_rows
from newsbert.training.run import BUNDLES

if TYPE_CHECKING:
    from newsbert.deployment.target import DeploymentStatus
    from newsbert.images.build import BuildPlan, BuiltImage, Kind
    from newsbert.tracking.client import TrackingClient

PIPELINE_TAG = "newsbert.pipeline"
"""Tag of a run that identifies its inputs: trainer image, settings, rows and base model."""


@dataclass(frozen=True)
class PipelineResult:
    """Result of a pipeline.

    Attributes:
        model: The version, `BertModel/7`.
        run_id: The training run, if training was part of the pipeline.
        image: Image of the live model.
        environment: Name of the environment.
        url: URL at which the model answers.
        previous: The previous model.
        accepted: Summary of the acceptance test.
        done: Steps that this pipeline had to do; the others were done before.
    """

    model: str
    run_id: str | None
    image: str
    environment: str
    url: str
    previous: str | None
    accepted: str
    done: tuple[str, ...]


class Pipeline:
    """All steps to an environment that are not done yet.

    Args:
        environment: Name of the environment.
        images: Settings of the images and their build.
        serving: Settings that are passed to the image.
        tracking_uri: URI of the tracking server; defaults to the configured one.
        on_log: Called with log messages.
        on_training: Called with the output of the training.

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

    def train(self, model_name: str) -> PipelineResult:
        """Train in the trainer image, register, build and verify the serving image, push, deploy and test it.

        Args:
            model_name: Name of the registered model.

        Raises:
            NewsbertError: If a step fails; the steps before it are not repeated.
        """
        with self._lock():
            trainer = self._build(None, "trainer")
            run_id = self._find_or_train(trainer.tag)
            version = registry.register(locate.connect(self._tracking_uri), run_id, model_name)
            self._log_step("register", str(version), version.created)
            self._build(str(version), "serving")
            return self._deploy(str(version), run_id)

    def release(self, model: str) -> PipelineResult:
        """Deploy the image of a version, run the acceptance test there, and roll back if it is not accepted.

        Args:
            model: `BertModel/7`, or by an alias, `BertModel@dev`.

        Raises:
            NewsbertError: If there is no such version or image, or it is not accepted.
        """
        with self._lock():
            version = references.find_version(locate.connect(self._tracking_uri), model)
            return self._deploy(f"{version.name}/{version.version}", None)

    def _build(self, model: str | None, kind: "Kind") -> "BuiltImage":
        with build.contexts(model, kind, self._images, self._tracking_uri) as plan:
            for note in plan.notes:
                self._log(f"Note: {note}")
            built = [build.build(context, self._images, self._log) for context in build.pending_contexts(plan)][-1]
            self._log_step(f"build the {kind} image", built.tag, not built.cached)
            if kind == "serving":
                self._record(plan, built)
            return built

    def _record(self, plan: "BuildPlan", built: "BuiltImage") -> None:
        """Record the image's parts in the registry, and its digest if images are pushed."""
        assert plan.located is not None and plan.located.model_name and plan.located.version
        tags = registry.version_tags(locate.connect(self._tracking_uri), plan.located.model_name, plan.located.version)
        for note in build.record(plan.located, built, self._tracking_uri):
            self._log(f"Note: {note}")
        if self._images.repository:
            pushed = build.push(built, plan.located, self._tracking_uri, lambda *_: None)[built.tag]
            self._log_step("push", pushed, pushed != tags.get(build.DIGEST_TAG))

    def _find_or_train(self, image: str) -> str:
        """Return the id of the run with the inputs of this training: an existing run, or a new one."""
        settings = config.resolve(TrainSettings)
        key = self._make_key(image, settings)
        tracker = locate.connect(self._tracking_uri, create=True)
        runs = tracker.runs(f"tags.`{PIPELINE_TAG}` = '{key}'", 100)
        for run in runs:
            if run.info.status == "FINISHED" and MODEL_ID_TAG in run.data.tags:
                self._log_step("train", f"run {run.info.run_id}", False)
                return str(run.info.run_id)
        parent = Path(settings.output_dir).expanduser().parent if settings.output_dir else BUNDLES
        for run in runs:
            directory = run_dir.find(run.info.run_id, parent)
            if directory is not None and run_dir.is_busy(directory):
                raise NewsbertError(
                    f"run {run.info.run_id} of an earlier pipeline is still being trained",
                    "wait, then run the pipeline again",
                )
            if directory is not None:
                self._log(f"going on with run {run.info.run_id} …")
                self._train(tracker, run.info.run_id, {"resume": str(directory)}, {})
                return str(run.info.run_id)
        run_id = experiment.create_run(tracker, {PIPELINE_TAG: key})
        self._log(f"training in {image}, run {run_id} …")
        self._train(tracker, run_id, {}, {"MLFLOW_RUN_ID": run_id})
        return run_id

    def _train(
        self, tracker: "TrackingClient", run_id: str, flags: dict[str, str], environment: dict[str, str]
    ) -> None:
        output = bytearray()
        flags = flags | ({"tracking_uri": self._tracking_uri} if self._tracking_uri else {})
        try:
            code = train.train(flags, ["--json"], output.extend, self._on_training, environment)
        except BaseException:
            tracker.end_killed(run_id)
            raise
        if code != 0:
            tracker.end_killed(run_id)
            raise NewsbertError(f"the training of run {run_id} failed (exit code {code})", "see what it printed above")
        if json.loads(output)["stopped_early"]:
            tracker.tag_run(run_id, PIPELINE_TAG, "stopped early")
            raise NewsbertError(
                f"run {run_id} was stopped early, and is not deployed",
                f"newsbert register {run_id}, if it will do; or newsbert pipeline again, which trains anew",
            )
        self._log_step("train", f"run {run_id}", True)

    def _make_key(self, image: str, settings: TrainSettings) -> str:
        rows = load_rows(settings)
        inputs = {
            **dataclasses.asdict(settings),
            "output_dir": None,
            "image": image,
            "rows": rows.digest,
            "base_model": base_model.find(settings.base_model).sha256,
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def _deploy(self, model: str, run_id: str | None) -> PipelineResult:
        release = deploy.release(model, self._target, self._images, self._tracking_uri)
        bundle = Bundle.read(locate.locate(model, tracking_uri=self._tracking_uri).path)
        # Read the acceptance data before anything changes.
        acceptance = Acceptance(model, bundle, self._settings)
        deployed = self._target.deployed()
        changed = deployed is None or deployed.image != release.image
        if deployed is None or changed:
            deployed = deploy.deploy(release, self._target, self._serving, self._tracking_uri, self._log)
        self._log_step(f"deploy to {self._environment}", deployed.image, changed)
        accepted = self._accept(model, acceptance, deployed, changed)
        return PipelineResult(
            model,
            run_id,
            deployed.image,
            self._environment,
            deployed.url,
            deployed.previous,
            accepted,
            tuple(self._done),
        )

    def _accept(self, model: str, acceptance: Acceptance, deployed: "DeploymentStatus", changed: bool) -> str:
        """Run the acceptance test on the deployed model, and record its success in the registry.

        Raises:
            ServingError: If the model is not accepted. The previous model then answers again, unless this one answered
                before and was accepted.
        """
        tracker = locate.connect(self._tracking_uri)
        name, _, number = model.rpartition("/")
        tag = f"newsbert.accepted.{self._environment}"
        was_accepted = registry.version_tags(tracker, name, number).get(tag) == deployed.image
        try:
            summary = acceptance.ask(self._settings.url or deployed.url, deployed.runtime)
        except NewsbertError as error:
            outcome = "it goes on answering"
            if deployed.previous is not None and (changed or not was_accepted):
                back = deploy.roll_back(self._target, self._tracking_uri, self._log)
                outcome = f"{back.model} answers again"
            raise ServingError(
                f"{model} is not accepted in {self._environment}: {error.message}; {outcome}", error.hint
            ) from error
        self._log_step("accept", summary, True)
        if not was_accepted:
            registry.tag_version(tracker, name, number, tag, deployed.image)
        return summary

    def _log_step(self, step: str, result: str, done: bool) -> None:
        if done:
            self._done.append(step)
        self._log(f"{step}: {result}" + ("" if done else "  (was done)"))

    def _lock(self) -> AbstractContextManager[None]:
        return locks.exclusive(f"pipeline-{self._environment}", f"another pipeline to {self._environment} is running")
