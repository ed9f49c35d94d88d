"""The model card: the bundle's `README.md`."""

from collections.abc import Mapping, Sequence
from typing import Any

from newsbert.evaluation.metrics import Scores
from newsbert.evaluation.review import ReviewStats, Threshold
from newsbert.training.baseline import NAME

_CARD = """# {title}

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

## Which answers a person should see
Answers with a score below {review_below} say `"review": true`. Thresholds are chosen on validation rows: the lowest at
which the wanted share of the other answers is right, by a margin of one standard error; 0 sends none, 1 all of them.

| wanted | threshold | validation: to a person | rest right | test: to a person | rest right |
|---|---|---|---|---|---|
{thresholds}

![Accuracy over the share answered without a person](review.png)

## Data
{train_rows} training, {validation_rows} validation and {test_rows} test rows of `{data}`, SHA-256 `{data_sha256}`.
The test rows were scored once, with the ONNX graph in this directory.

## How it reads a text
Cleaned ({cleaning}); title and text joined with one blank; the first {max_length} tokens are read. `newsbert.json`
is the contract: it holds this, and texts with the probabilities that any environment must give for them.

## Limits
It answers with one of its labels for any text, also for one that is no news or in another language than its training
rows. Its probabilities are calibrated on validation rows, with a temperature of {temperature:.3f}: on the test rows
they are {calibration_error:.1%} from the share that is right, on the average; without it they would be
{uncalibrated_error:.1%}. On texts of another kind they may be further off.
"""


def render(contract: Mapping[str, Any], scores: Scores, baseline: Scores, thresholds: Sequence[Threshold]) -> str:
    """Return the card, in Markdown, of a model, beside a baseline.

    Args:
        contract: Its contract.
        scores: On the test rows.
        baseline: The baseline's, on the same rows.
        thresholds: Below which a person has to see an answer.
    """
    rows = contract["data"]["rows"]
    classes = "\n".join(
        f"| {_cell(name)} | {each.precision:.4f} | {each.recall:.4f} | {each.f1:.4f} | {each.support} |"
        for name, each in scores.per_class.items()
    )
    return _CARD.format(
        title=f"News classifier: {len(contract['labels'])} classes",
        labels=", ".join(contract["labels"]),
        base=contract["base_model"]["name"],
        version=contract["newsbert_version"],
        test_rows=rows["test"],
        train_rows=rows["train"],
        validation_rows=rows["validation"],
        compared="\n".join(_row(name, each) for name, each in {"this model": scores, NAME: baseline}.items()),
        calibration_error=scores.calibration_error,
        uncalibrated_error=contract["metrics"]["uncalibrated_error"],
        temperature=contract["temperature"],
        classes=classes,
        review_below=f"{contract['review_below']:.4g}",
        thresholds="\n".join(map(_threshold, thresholds)),
        data=contract["data"]["name"],
        data_sha256=contract["data"]["sha256"],
        cleaning=", ".join(contract["cleaning"]),
        max_length=contract["max_length"],
    )


def _row(name: str, scores: Scores) -> str:
    figures = (scores.accuracy, scores.f1_macro, scores.loss, scores.calibration_error)
    return f"| {name} | {' | '.join(f'{each:.4f}' for each in figures)} |"


def _threshold(each: Threshold) -> str:
    """A line of the table of thresholds."""
    wanted = "(given)" if each.precision is None else f"{each.precision:.4g}"
    return f"| {wanted} | {each.below:.4g} | {_outcome(each.validation)} | {_outcome(each.test)} |"


def _outcome(found: ReviewStats) -> str:
    """Two cells of it."""
    return f"{found.share:.1%} | {'' if found.accuracy is None else f'{found.accuracy:.1%}'}"


def _cell(text: str) -> str:
    """A label as it can stand in a table's cell."""
    return text.replace("|", "\\|")
