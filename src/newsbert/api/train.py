"""Train a model."""

import dataclasses
import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from newsbert.core import config, environment, ray_cluster
from newsbert.core.events import Event, ignore, never
from newsbert.core.identifiers import parse_model_name
from newsbert.core.settings import RaySettings, TrainSettings
from newsbert.errors import UsageError
from newsbert.tracking.locate import connect
from newsbert.training import run
from newsbert.training.result import TrainResult
from newsbert.training.rows import load_rows


def train(  # noqa: PLR0913 - options by name
    *,
    data: str | Path | None = None,
    labels: Sequence[str] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    base_model: str | Path | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    max_train_samples: int | None = None,
    batch_size: int | None = None,
    tune: str | None = None,
    lora_rank: int | None = None,
    precision: str | None = None,
    learning_rate: float | None = None,
    max_length: int | None = None,
    review_target_accuracy: float | None = None,
    review_threshold: float | None = None,
    companion: str | None = None,
    cascade_loss: float | None = None,
    unlabelled: str | Path | None = None,
    seed: int | None = None,
    output_dir: str | Path | None = None,
    model_name: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    resume: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    on_event: Callable[[Event], None] = ignore,
    stop: Callable[[], bool] = never,
) -> TrainResult:
    """Fine-tune an encoder and log the run, the model and its bundle.

    Arguments default to the configured values, or else to those of `settings.TrainSettings`.

    Args:
        data: `sample`, a file or directory of labelled rows, or a data set of the Hub.
        labels: Names of integer labels 0, 1, …
        text_column: Column of the text.
        label_column: Column of the label.
        base_model: `minilm`, a model's directory, or a Hub name.
        epochs: Number of training epochs.
        max_steps: Maximum number of steps, independent of the number of epochs.
        max_train_samples: Maximum number of training rows.
        batch_size: Rows per training step.
        tune: `full`, `contrastive`, `lora`, `head` or `auto`.
        lora_rank: Rank of the adapters of `lora`.
        precision: `bf16`, `fp32` or `auto`.
        learning_rate: Maximum learning rate.
        max_length: Maximum number of tokens per text, in training and in serving.
        review_target_accuracy: Required precision of the answers that no person reviews, as a ratio.
        review_threshold: Score below which a person must review an answer.
        companion: `linear` or `none`.
        cascade_loss: Points of accuracy that may be lost where the companion answers alone, as an upper 95% bound.
        unlabelled: File of more texts without labels, for the companion to learn from.
        seed: Seed of splits, order and initialization.
        output_dir: Directory for the bundle; default: `bundles/RUN_ID`.
        model_name: Registers the model under this name when done.
        tracking_uri: MLflow's tracking URI; default: the configured one.
        experiment: The MLflow experiment; default: the configured one.
        resume: The id of a run that was killed, or failed after it had a checkpoint, or the start of the id, or the
            run's working directory. The run continues from there with its own settings.
        workers: Number of Ray processes that train; default: the configured number.
        ray_address: Address of the Ray cluster; default: the configured one.
        on_event: Called with the events of the training.
        stop: Called after every step. If true, training ends early, and the model retained so far is finished and
            logged.

    Raises:
        NewsbertError: If training fails; no partial output remains.
    """
    arguments = locals()
    settings = {field.name: arguments[field.name] for field in dataclasses.fields(TrainSettings)}
    shared = config.resolve_shared(workers, ray_address)
    if model_name is not None:
        parse_model_name(model_name)
    overrides = [name for name, value in settings.items() if value is not None]
    if resume is not None and overrides:
        raise UsageError(
            f"--resume goes on with the settings of its run, and --{overrides[0].replace('_', '-')} is another",
            f"newsbert train --resume {shlex.quote(resume)}",
        )
    resolved = _resolve_settings(resume, settings)
    _check_shared(resolved, shared)
    if resume is not None:
        return run.resume(resume, shared, connect(tracking_uri, experiment), model_name, on_event, stop)
    connect_tracker = functools.partial(connect, tracking_uri, experiment, create=True)
    return run.start(resolved, shared, connect_tracker, model_name, on_event, stop)


def join_training(resume: str | None, stop: Callable[[], bool], **settings: Any) -> None:
    """Take part in the steps of a training that another torchrun process runs.

    Args:
        resume: As `train` takes it.
        stop: Called after every step.
        **settings: As `train` takes them.

    Raises:
        NewsbertError: If training fails.
    """
    from newsbert.training import base_model, methods
    from newsbert.training.context import TrainingContext

    resolved = _resolve_settings(resume, settings)
    rows = load_rows(resolved)
    base = base_model.find(resolved.base_model)
    resolved = methods.choose(resolved, rows, base)
    methods.tune_part(TrainingContext(resolved, rows, base, should_stop=stop))


def _resolve_settings(resume: str | None, settings: dict[str, Any]) -> TrainSettings:
    """Return the settings of the resumed run, or else those from arguments, configuration and defaults."""
    return config.resolve(TrainSettings, **settings) if resume is None else run.settings_of(resume)


def _check_shared(settings: TrainSettings, shared: RaySettings) -> None:
    """Check that several processes can run one training.

    Raises:
        UsageError: If they cannot.
    """
    several = shared.workers > 1 or environment.torchrun_rank() is not None
    if several and settings.tune in {"contrastive", "head"}:
        raise UsageError(f"--tune {settings.tune} is done by one process", "--ray-workers 1, without torchrun")
    if shared.workers > 1 and environment.torchrun_rank() is not None:
        raise UsageError(f"--ray-workers {shared.workers} and torchrun both start processes", "--ray-workers 1")
    if shared.workers > 1:
        ray_cluster.check(shared)
