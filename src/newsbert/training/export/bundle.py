"""Export of a trained model to its bundle: graphs, temperature, scores, images and card."""

import csv
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from newsbert.bundle import bundle, pins, row_sketch, shared_weights
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, Contract, GoldenText, GraphInfo
from newsbert.bundle.golden import GOLDEN_ITEMS
from newsbert.core import cpu
from newsbert.core.events import Event, Note, Phase
from newsbert.core.settings import TrainSettings
from newsbert.core.types import FloatArray
from newsbert.core.version import __version__
from newsbert.data.dataset import Dataset
from newsbert.data.text import CLEANING_RULES, preprocess
from newsbert.evaluation import plots, review_threshold
from newsbert.evaluation.calibration import calibration_error, reliability, softmax
from newsbert.evaluation.metrics import Scores, score
from newsbert.evaluation.review_threshold import RiskCoverageCurve, Threshold
from newsbert.inference.runtime import Runtime, load_runtime
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import bert_graph, label_issues
from newsbert.training.baseline import NAME
from newsbert.training.context import TrainingContext
from newsbert.training.export import companion, model_card, onnx, parity, quantization
from newsbert.training.export.parity import ReferencePredictions
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.label_issues import LabelIssue

_REVIEW_STATISTICS = ("review_rate", "selective_accuracy")
_LIBRARIES = ("torch", "transformers", "tokenizers", "onnxruntime", "numpy", "mlflow", "datasets")

_WINDOW_ROWS = 8192


@dataclass(frozen=True)
class TestReport:
    """Results on the test rows of the graph that ships, and its speed.

    Attributes:
        scores: Scores on the test rows.
        texts_per_second: Speed on the test rows.
        review: The threshold below which a person has to see an answer, followed by those for other precisions.
        mistakes: Test rows whose labels it contradicts, the most confident prediction first.
        parts: Scores of the encoder alone and of the companion alone, if there is one.
    """

    scores: Scores
    texts_per_second: float
    review: list[Threshold]
    mistakes: list[LabelIssue]
    parts: dict[str, Scores]


def write(
    part: Path, context: TrainingContext, trained: TrainedModel, tokenizer: SequenceTokenizer, baseline: Scores
) -> tuple[TestReport, Bundle]:
    """Export, calibrate, check against PyTorch, score the test rows with the graph that ships, and seal the bundle.

    Args:
        part: The bundle's directory, which holds the tokenizer.
        context: The training.
        trained: The model.
        tokenizer: From `prepare_tokenizer`.
        baseline: The baseline's scores on the test rows, for the card.

    Raises:
        ModelError: If the probabilities of a graph differ from those of the model.
    """
    settings, rows, base, on_event = context.settings, context.dataset, context.base_model, context.on_event
    trained.model.save_pretrained(str(part))
    graphs, reference = _write_graphs(part, trained.model, tokenizer, rows, on_event)
    contract: dict[str, Any] = {
        "newsbert_version": __version__,
        "labels": list(rows.label_names),
        "max_length": tokenizer.max_length,
        "pad_id": tokenizer.pad_id,
        "cleaning": list(CLEANING_RULES),
        "temperature": reference.temperature,
        "base_model": {"name": base.name, "sha256": base.sha256},
        "data": {
            # A file's name without its path: the path has no meaning on other machines.
            "name": Path(rows.name).name if Path(rows.name).expanduser().exists() else rows.name,
            "sha256": rows.digest,
            "rows": {"train": len(rows.train), "validation": len(rows.validation), "test": len(rows.test)},
            "text_column": settings.text_column,
            "label_column": settings.label_column,
        },
        "libraries": {"python": sys.version.split()[0], **pins.versions(*_LIBRARIES)},
        "graphs": graphs,
        "golden": [
            GoldenText(item if isinstance(item, str) else {key: str(value) for key, value in item.items()}, row)
            for item, row in zip(GOLDEN_ITEMS, reference.golden, strict=True)
        ],
        "metrics": {},
    }
    # The graph that ships is the graph that is scored.
    (part / CONTRACT_FILE).write_text(Contract(**contract, files={}).to_json(), encoding="utf-8")
    bundle.write_class_mapping(part, contract["labels"])
    on_event(Phase("validating"))
    encoder = load_runtime(Bundle.read_unsigned(part))
    validation, alone = (_predict(encoder, split.texts) for split in (rows.validation, rows.test))
    fitted = companion.fit(context, validation, _predict(encoder, rows.unlabelled))
    if fitted is not None:
        validation = fitted.combine(validation, rows.validation.texts)
        companion.write(part, contract, fitted)
        (part / CONTRACT_FILE).write_text(Contract(**contract, files={}).to_json(), encoding="utf-8")
    on_event(Phase("testing"))
    runtime = load_runtime(Bundle.read_unsigned(part))
    started = time.perf_counter()
    probabilities = _predict(runtime, rows.test.texts)
    speed = len(rows.test) / (time.perf_counter() - started)
    scores = score(probabilities, rows.test.labels, rows.label_names)
    uncalibrated = softmax(np.log(alone.clip(np.finfo(np.float32).tiny)), 1 / reference.temperature)
    before, after = (reliability(values, rows.test.labels) for values in (uncalibrated, probabilities))
    contract["metrics"] = {**scores.metrics, "uncalibrated_error": calibration_error(before)}
    parts: dict[str, Scores] = {}
    if fitted is not None:
        parts = {
            name: score(values, rows.test.labels, rows.label_names)
            for name, values in {"encoder alone": alone, "companion alone": fitted.predict(rows.test.texts)}.items()
        }
        coverage = float(fitted.find_answered(rows.test.texts).mean()) if len(rows.test) else 0.0
        contract["metrics"] |= {
            "encoder_accuracy": parts["encoder alone"].accuracy,
            "companion_accuracy": parts["companion alone"].accuracy,
            "companion_coverage": coverage,
        }
    thresholds = _choose_threshold(
        part,
        contract,
        (validation, rows.validation.labels.tolist()),
        (probabilities, rows.test.labels.tolist()),
        settings,
        on_event,
    )
    plots.confusion_matrix(scores, part / "confusion_matrix.png")
    plots.learning_curves(trained.history.steps, trained.history.evaluations, part / "learning_curves.png")
    plots.reliability_diagram(before, after, part / "reliability_diagram.png")
    lines = pins.for_bundle()
    (part / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (part / "README.md").write_text(
        model_card.render(contract, scores, {**parts, NAME: baseline}, thresholds), encoding="utf-8"
    )
    mistakes = label_issues.find_mistakes(rows.test.texts, rows.test.labels, probabilities, rows.label_names)
    row_sketch.write(itertools.chain(rows.train.texts, rows.validation.texts), part / bundle.SKETCH_FILE)
    report = TestReport(scores, speed, thresholds, mistakes, parts)
    return report, bundle.seal(part, contract)


def _choose_threshold(
    part: Path,
    contract: dict[str, Any],
    validation: tuple[FloatArray, list[int]],
    test: tuple[FloatArray, list[int]],
    settings: TrainSettings,
    on_event: Callable[[Event], None],
) -> list[Threshold]:
    """Choose the score below which a person has to see an answer, and write it to contract, table and plot.

    Args:
        part: The bundle's directory.
        contract: Receives the threshold and its effect on the test rows.
        validation: Probabilities `(rows, num_labels)` and label ids of the rows on which the threshold is chosen.
        test: The same of the test rows.
        settings: The required precision, or the threshold.
        on_event: Called with every event.
    """
    thresholds = review_threshold.thresholds(
        validation, test, settings.review_target_accuracy, settings.review_threshold
    )
    chosen = thresholds[0]
    if chosen.precision is not None and chosen.below == review_threshold.ALL:
        count = len(validation[1])
        on_event(
            Note(
                f"every answer is flagged for review: {count} validation rows do not show an accuracy of "
                f"{chosen.precision:.4g} at any score; use a lower --review-target-accuracy, or --review-threshold 0 "
                "to flag none"
            )
        )
    contract["review_threshold"] = chosen.below
    contract["metrics"]["review_rate"] = chosen.test.review_rate
    if chosen.test.accuracy is not None:
        contract["metrics"]["selective_accuracy"] = chosen.test.accuracy
    with (part / bundle.REVIEW_FILE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        sides = ("validation", "test")
        table.writerow(
            ["precision", "review_threshold", *(f"{side}_{name}" for side in sides for name in _REVIEW_STATISTICS)]
        )
        for threshold in thresholds:
            statistics = [
                getattr(getattr(threshold, side), name) for side in sides for name in ("review_rate", "accuracy")
            ]
            table.writerow([threshold.precision, threshold.below, *statistics])
    plots.coverage(RiskCoverageCurve.of(*validation), RiskCoverageCurve.of(*test), chosen, part / "review.png")
    return thresholds


def _predict(runtime: Runtime, texts: Sequence[str]) -> FloatArray:
    """Return the probabilities of prepared texts, computed window by window: a split may not fit into memory."""
    windows = range(0, max(1, len(texts)), _WINDOW_ROWS)
    return np.concatenate([runtime.predict_prepared(texts[start : start + _WINDOW_ROWS]) for start in windows])


def _write_graphs(
    part: Path,
    model: PreTrainedModel,
    tokenizer: SequenceTokenizer,
    rows: Dataset,
    on_event: Callable[[Event], None],
) -> tuple[dict[str, GraphInfo], ReferencePredictions]:
    """Write and check the serving graphs; return their entries in the contract, and the reference predictions."""
    fp32, int8 = part / bundle.FP32_GRAPH, part / bundle.INT8_GRAPH
    golden = [preprocess(item) for item in GOLDEN_ITEMS]
    onnx.write_onnx(model, fp32)
    scale = bert_graph.query_scale(model.config) if bert_graph.supports(model) else 1.0
    shared_weights.externalize(fp32, part / bundle.WEIGHTS_FILE, scale)
    checked = rows.validation.sample_evenly(parity.CHECKED_ROWS)
    reference = ReferencePredictions(model, tokenizer, golden, list(checked.texts), checked.labels.tolist())
    graphs = {fp32.name: reference.fp32(fp32)}
    if not cpu.multiplies_int8():
        on_event(Note("no quantized graph: this processor has no instructions (VNNI) to check one with"))
        return graphs, reference
    on_event(Phase("quantizing"))
    calibration = tokenizer.encode(list(rows.train.sample_evenly(quantization.CALIBRATION_ROWS).texts))
    quantization.write(fp32, int8, calibration, tokenizer.pad_id)
    graph = reference.int8(int8)
    if parity.passes_gate(graph):
        graphs[int8.name] = graph
    else:
        int8.unlink()
        on_event(Note(f"no quantized graph: {parity.rejection_reason(graph)}"))
    return graphs, reference
