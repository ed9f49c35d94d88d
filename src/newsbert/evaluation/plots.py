"""Plots of a run: learning curves, confusion matrix, reliability diagram, and accuracy with a person's review."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from newsbert.core.events import Evaluation, Step
from newsbert.evaluation.calibration import Bin, calibration_error
from newsbert.evaluation.metrics import Scores
from newsbert.evaluation.review_threshold import RiskCoverageCurve, Threshold

LOSS, SCORE = "#0b6e99", "#c2410c"


def confusion_matrix(scores: Scores, file: Path, rows: str = "Test rows") -> None:
    """Draw rows by true and predicted label, shaded by their fraction of the true label's rows."""
    names = list(scores.per_class)
    size = min(3.2 + 0.55 * len(names), 24)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    fractions = scores.confusion / scores.confusion.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=f"{rows}: accuracy {scores.accuracy:.1%}")
    if len(names) <= 30:
        for row in range(len(names)):
            for column in range(len(names)):
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, str(scores.confusion[row, column]), ha="center", va="center", color=color)
    figure.savefig(file, dpi=110)


def learning_curves(steps: Sequence[Step], evaluations: Sequence[Evaluation], file: Path) -> None:
    """Draw training and validation loss, and the validation score, over steps."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    left = figure.subplots()
    losses = [(step.step, step.loss) for step in steps if step.loss is not None]
    left.plot(*zip(*losses, strict=True), color=LOSS, label="training loss") if losses else None
    evaluated_steps = [evaluation.step for evaluation in evaluations]
    left.plot(
        evaluated_steps, [evaluation.loss for evaluation in evaluations], "o--", color=LOSS, label="validation loss"
    )
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    right = left.twinx()
    right.plot(
        evaluated_steps, [evaluation.f1_macro for evaluation in evaluations], "s-", color=SCORE, label="validation F1"
    )
    right.set(ylabel="macro F1", ylim=(0, 1))
    best = [evaluation for evaluation in evaluations if evaluation.best]
    if best:
        right.annotate(f"{best[-1].f1_macro:.3f}", (best[-1].step, best[-1].f1_macro), textcoords="offset points",
                       xytext=(0, 8), ha="center", color=SCORE)  # fmt: skip
    lines = [*left.get_lines(), *right.get_lines()]
    left.legend(handles=lines, loc="center right")
    figure.savefig(file, dpi=110)


def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin], file: Path) -> None:
    """Draw the accuracy of predicted labels over their probability, without the temperature and with it.

    The area of a point grows with the fraction of rows that it represents.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="gray")
    for bins, color, name in ((before, SCORE, "without temperature"), (after, LOSS, "calibrated")):
        confidence, accuracy = [bin_.confidence for bin_ in bins], [bin_.accuracy for bin_ in bins]
        axes.plot(confidence, accuracy, color=color, label=f"{name}: error {calibration_error(bins):.3f}")
        axes.scatter(
            confidence, accuracy, [10 + 400 * bin_.fraction for bin_ in bins], color=color, alpha=0.5, clip_on=False
        )
    axes.set(
        xlabel="probability of the predicted label", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1),
        title="Test rows: reliability",
    )  # fmt: skip
    axes.legend(loc="upper left")
    figure.savefig(file, dpi=110)


def coverage(validation: RiskCoverageCurve, test: RiskCoverageCurve, chosen: Threshold, file: Path) -> None:
    """Draw the accuracy of answers over the fraction of them that is not reviewed, for all thresholds.

    Args:
        validation: Curve of the rows on which thresholds are chosen.
        test: Curve of the test rows.
        chosen: The threshold with which answers are compared.
        file: The output file.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    lowest = 1.0
    for curve, color, name in ((validation, SCORE, "validation rows"), (test, LOSS, "test rows")):
        if len(curve.num_answered):
            accuracy = curve.num_correct / curve.num_answered
            axes.plot(curve.num_answered / curve.num_answered[-1], accuracy, color=color, label=name)
            # A wrong answer among the first few means little, but would dominate the plot.
            lowest = min(lowest, float(accuracy[curve.num_answered >= curve.num_answered[-1] / 10].min()))
    if chosen.precision is not None:
        axes.axhline(chosen.precision, color="gray", ls=":", label=f"target: {chosen.precision:.4g}")
        lowest = min(lowest, chosen.precision)
    if chosen.test.accuracy is not None:
        axes.plot(
            1 - chosen.test.review_rate,
            chosen.test.accuracy,
            "o",
            color=LOSS,
            label=f"score {chosen.below:.4g} or more",
        )
    margin = max(0.01, 0.1 * (1 - lowest))
    axes.set(
        xlabel="fraction answered without review", ylabel="accuracy of these answers", xlim=(0, 1.01),
        ylim=(lowest - margin, 1 + margin / 2), title="Answers with the highest scores",
    )  # fmt: skip
    axes.legend(loc="best")
    figure.savefig(file, dpi=110)
