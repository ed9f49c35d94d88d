"""The model card: the bundle's `README.md`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from newsbert.bundle.contract import CompanionInfo
from newsbert.evaluation.metrics import Scores
from newsbert.evaluation.review_threshold import ReviewStats, Threshold

_TEMPLATE = """# {title}

Classifies a news text (or title and text) as {labels}. {base} fine-tuned by newsbert {version}.

| on {test_rows} test rows | accuracy | macro F1 | loss | calibration error |
|---|---|---|---|---|
{compared}

| class | precision | recall | F1 | rows |
|---|---|---|---|---|
{classes}

![Confusion matrix](confusion_matrix.png)
![Learning curves](learning_curves.png)
![Reliability diagram](reliability_diagram.png)

{companion}## Review threshold
Answers with a score below {review_threshold} are flagged for review: `"review": true`. A threshold is chosen on
validation rows: the lowest at which the other answers reach the target accuracy, with a margin of one standard error.
0 flags no answer, 1 all of them.

| target accuracy | threshold | validation: review rate | others' accuracy | test: review rate | others' accuracy |
|---|---|---|---|---|---|
{thresholds}

![Accuracy by the fraction that is not flagged for review](review.png)

## Data
{train_rows} training, {validation_rows} validation and {test_rows} test rows of `{data}`, SHA-256 `{data_sha256}`.
The test rows were scored once, with the ONNX graph in this directory.

## Preprocessing
A text is cleaned ({cleaning}). Title and text are joined with one blank. Longer texts are truncated to {max_length}
tokens. `newsbert.json` is the contract: it states this, and has golden texts with the probabilities that every
environment must reproduce.

## Limitations
It answers with one of its labels for any text, also for one that is no news or in another language than its training
rows. Its probabilities are calibrated on validation rows, with a temperature of {temperature:.3f}: on the test rows
their expected calibration error is {calibration_error:.1%}; without it, it would be {uncalibrated_error:.1%}. On texts
of another kind it may be larger.
"""


_COMPANION = """## Companion
The answers of the encoder are mixed with those of a linear classifier of words and pairs, with the weights
{model_weight:.3f} and {companion_weight:.3f}. {cascade}

"""
_CASCADE = (
    "The companion answers alone where its probability is at least {threshold:.4g}: {coverage:.1%} of the {rows} "
    "validation rows. With 95% confidence, that costs at most {loss:.2f} points of accuracy."
)


def render(
    contract: Mapping[str, Any],
    scores: Scores,
    others: Mapping[str, Scores],
    thresholds: Sequence[Threshold],
) -> str:
    """Return the card of a model in Markdown, with a comparison to its parts and to a baseline.

    Args:
        contract: The contract of its bundle.
        scores: Scores on the test rows.
        others: Scores of the model's parts and of the baseline on the same rows, by name.
        thresholds: Scores below which a person has to see an answer.
    """
    rows = contract["data"]["rows"]
    classes = "\n".join(
        f"| {_escape_cell(name)} | {entry.precision:.4f} | {entry.recall:.4f} | {entry.f1:.4f} | {entry.support} |"
        for name, entry in scores.per_class.items()
    )
    return _TEMPLATE.format(
        title=f"News classifier: {len(contract['labels'])} classes",
        labels=", ".join(contract["labels"]),
        base=contract["base_model"]["name"],
        version=contract["newsbert_version"],
        test_rows=rows["test"],
        train_rows=rows["train"],
        validation_rows=rows["validation"],
        compared="\n".join(_format_row(name, entry) for name, entry in {"this model": scores, **others}.items()),
        calibration_error=scores.calibration_error,
        uncalibrated_error=contract["metrics"]["uncalibrated_error"],
        temperature=contract["temperature"],
        classes=classes,
        companion=_describe_companion(contract.get("companion")),
        review_threshold=f"{contract['review_threshold']:.4g}",
        thresholds="\n".join(map(_format_threshold, thresholds)),
        data=contract["data"]["name"],
        data_sha256=contract["data"]["sha256"],
        cleaning=", ".join(contract["cleaning"]),
        max_length=contract["max_length"],
    )


def _describe_companion(companion: CompanionInfo | None) -> str:
    """Return the section on the companion; empty if there is none."""
    if companion is None:
        return ""
    values = dataclasses.asdict(companion)
    cascade = "It answers no text alone." if companion.threshold is None else _CASCADE.format(**values)
    return _COMPANION.format(**values, cascade=cascade)


def _format_row(name: str, scores: Scores) -> str:
    figures = (scores.accuracy, scores.f1_macro, scores.loss, scores.calibration_error)
    return f"| {name} | {' | '.join(f'{value:.4f}' for value in figures)} |"


def _format_threshold(threshold: Threshold) -> str:
    """Return a line of the table of thresholds."""
    precision = "(set)" if threshold.precision is None else f"{threshold.precision:.4g}"
    cells = [_format_statistics(statistics) for statistics in (threshold.validation, threshold.test)]
    return f"| {precision} | {threshold.below:.4g} | {' | '.join(cells)} |"


def _format_statistics(statistics: ReviewStats) -> str:
    """Return the two cells of a split in the table of thresholds."""
    return f"{statistics.review_rate:.1%} | {'' if statistics.accuracy is None else f'{statistics.accuracy:.1%}'}"


def _escape_cell(text: str) -> str:
    """Escape a label for a cell of a table."""
    return text.replace("|", "\\|")
