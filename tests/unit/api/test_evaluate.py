"""`newsbert evaluate` and the rows it reads."""

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.events import Event, Note
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Split, load_dataset
from newsbert.data.evaluation_set import labelled
from newsbert.errors import DataError, NotFoundError, TrackingError, UsageError
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS

NAMES = ("World", "Sports", "Business")


def _write(file: Path, *lines: str) -> str:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


# Rows


def test_rows_are_not_changed_by_reading(tmp_path: Path) -> None:
    file = _write(tmp_path / "rows.csv", "text,label", "one  goal,Sports", "one  goal,Sports", "&amp; a vote,World")
    rows = labelled(file, NAMES)
    assert rows.items == ["one  goal", "one  goal", "&amp; a vote"]  # repeated ones too; the model cleans
    assert (rows.labels, rows.split, rows.notes) == ([1, 1, 0], "", ())


def test_a_single_row_with_a_title_is_evaluated(tmp_path: Path) -> None:
    rows = labelled(_write(tmp_path / "rows.csv", "title,text,label", "Cup,a goal,Sports"), NAMES)
    assert (rows.items, rows.labels) == ([{"title": "Cup", "text": "a goal"}], [1])


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        ((), NAMES, [0, 2]),  # the model's own numbers, with a note
        (("Business", "Sports", "World"), NAMES, [2, 0]),
        ((), ("2", "0", "1"), [1, 0]),  # a model whose labels are numbers: their names
    ],
)
def test_numeric_labels_are_names_or_indices(
    tmp_path: Path, labels: tuple[str, ...], names: tuple[str, ...], ids: list[int]
) -> None:
    rows = labelled(_write(tmp_path / "rows.csv", "text,label", "a,0", "b,2"), names, labels=labels)
    assert rows.labels == ids
    assert bool(rows.notes) == (not labels and names == NAMES)


def test_an_unknown_numeric_label_is_refused(tmp_path: Path) -> None:
    file = _write(tmp_path / "rows.csv", "text,label", "a,1", "b,0")
    with pytest.raises(DataError, match="row 2, column 'label': the model has no label 0; it has 1, 2, 3"):
        labelled(file, ("1", "2", "3"))


def test_an_unknown_label_is_named_with_its_row(tmp_path: Path) -> None:
    file = _write(tmp_path / "rows.csv", "text,label", "a,World", "b,Weather")
    with pytest.raises(
        DataError, match="row 2, column 'label': the model has no label 'Weather'; it has World, Sports, Business"
    ):
        labelled(file, NAMES)
    numbered = _write(tmp_path / "numbers.csv", "text,label", "a,0", "b,1")
    with pytest.raises(DataError, match="row 2, column 'label': the model has no label 'Weather'"):
        labelled(numbered, NAMES, labels=("World", "Weather"))
    with pytest.raises(DataError, match="no rows with text and label"):
        labelled(_write(tmp_path / "none.csv", "text,label", "a,"), NAMES)


def test_the_test_split_is_scored(tmp_path: Path) -> None:
    lines = ["text,label,split", "a,World,train", "b,Weather,validation", "c,Sports,test"]
    rows = labelled(_write(tmp_path / "rows.csv", *lines), NAMES)
    assert (rows.items, rows.split) == (["c"], "test")
    rows = labelled(_write(tmp_path / "rows.csv", *lines[:2]), NAMES)
    assert (rows.items, rows.split) == (["a"], "train")


def test_rows_without_text_are_skipped_with_a_note(tmp_path: Path) -> None:
    file = _write(tmp_path / "rows.csv", "text,label", "a,World", '" ",World')
    rows = labelled(file, NAMES)
    assert (rows.items, rows.notes) == (["a"], ("1 row without text or label was left out",))
    with pytest.raises(DataError, match="no rows with text and label"):
        labelled(_write(tmp_path / "rows.csv", "text,label", '" ",World'), NAMES)


def test_the_digest_depends_on_the_rows_only(tmp_path: Path) -> None:
    """Not of how a model numbers its labels: evaluations of several models on the same rows have the same."""
    file = _write(tmp_path / "rows.csv", "text,label", "a,World", "b,Sports")
    digest = labelled(file, NAMES).digest
    assert digest == labelled(file, NAMES[::-1]).digest
    assert digest != labelled(_write(tmp_path / "rows.csv", "text,label", "a,World", "b,World"), NAMES).digest


def test_the_ag_news_file_is_evaluated(tmp_path: Path) -> None:
    rows = labelled(_write(tmp_path / "test.csv", '"3","Stocks","fall"', '"1","A vote","today"'), NAMES)
    assert rows.labels == [2, 0]


# Evaluations


def test_scores_are_those_of_the_predictions(bundle: Bundle, labelled_file: Path) -> None:
    result = newsbert.evaluate(bundle.path, str(labelled_file), log=False)
    rows = labelled(str(labelled_file), bundle.contract.labels)
    answers = [prediction.label for prediction in newsbert.load(bundle.path).predict(rows.items)]
    right = np.mean(
        [answer == bundle.contract.labels[label] for answer, label in zip(answers, rows.labels, strict=True)]
    )
    assert result.model.scores.accuracy == pytest.approx(right)
    assert result.model.accuracy.low <= right <= result.model.accuracy.high
    assert (result.rows, result.run_id, result.comparison) == (90, None, None)
    assert {name: scores.support for name, scores in result.model.scores.per_class.items()} == dict.fromkeys(LABELS, 30)


def test_configured_columns_take_precedence_over_the_usual_ones(
    cli: Cli, bundle: Bundle, labelled_file: Path, tmp_path: Path
) -> None:
    content = labelled_file.read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_text(content.replace("text,label", "headline,kind"), encoding="utf-8")
    evaluate = ("evaluate", bundle.path, "--data", "other.csv", "--no-log", "--json")
    predict = ("predict", "--model", bundle.path, "--file", "other.csv", "--output", "out.csv", "--json")
    for call in (evaluate, predict):
        assert "no column" in cli(*call).stderr
    (tmp_path / "newsbert.toml").write_text('[train]\ntext_column = "headline"\nlabel_column = "kind"\n')
    assert json.loads(cli(*evaluate).stdout)["rows"] == 90
    assert json.loads(cli(*predict).stdout)["rows"] == 90
    shutil.copy(labelled_file, tmp_path / "other.csv")  # which has no such columns
    assert json.loads(cli(*evaluate).stdout)["rows"] == 90


def test_one_text_is_one_text(bundle: Bundle) -> None:
    model = newsbert.load(bundle.path)
    assert model.predict("goal team cup") == model.predict(["goal team cup"])
    item = {"title": "goal", "text": "team cup"}
    assert model.predict(item) == model.predict([item])
    assert model.probabilities("goal team cup").shape == (1, 3)
    assert len(model.explain("goal team cup")) == 1
    assert len(model.predict(text for text in ("goal", "bank"))) == 2


def test_the_package_lists_its_public_names() -> None:
    assert dir(newsbert) == sorted(newsbert.__all__)
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    parameters = inspect.signature(newsbert.train).parameters
    assert names < set(parameters)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


def test_the_columns_of_the_model_are_used(bundle: Bundle, labelled_file: Path, tmp_path: Path) -> None:
    content = labelled_file.read_text(encoding="utf-8")
    (tmp_path / "other.csv").write_text(content.replace("text,label", "headline,kind"), encoding="utf-8")
    rows = labelled(str(tmp_path / "other.csv"), LABELS, likely_texts=(None, "headline"), likely_labels=("kind",))
    assert len(rows.items) == 90


def test_a_model_compared_to_itself_does_not_differ(bundle: Bundle, labelled_file: Path) -> None:
    result = newsbert.evaluate(bundle.path, str(labelled_file), compare_to=bundle.path, log=False)
    assert result.comparison is not None
    assert result.comparison.other.scores.metrics == result.model.scores.metrics
    assert (result.comparison.accuracy.low, result.comparison.accuracy.high) == (0, 0)
    assert (result.comparison.mcnemar.only_first, result.comparison.mcnemar.p_value) == (0, 1)


def test_models_with_other_labels_are_not_compared(bundle: Bundle, labelled_file: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle.path, tmp_path / "other")
    for name in ("newsbert.json", "class_mapping.json"):
        content = (other / name).read_text(encoding="utf-8")
        (other / name).write_text(content.replace('"World"', '"Weather"'), encoding="utf-8")
    with pytest.raises(UsageError, match="have different labels"):
        newsbert.evaluate(bundle.path, str(labelled_file), compare_to=other, log=False)


def test_a_bundle_is_scored_without_a_tracking_server(bundle: Bundle, labelled_file: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = newsbert.evaluate(bundle.path, str(labelled_file), on_event=events.append)
    assert result.run_id is None
    assert any(isinstance(event, Note) and "nothing will be logged" in event.message for event in events)
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises((NotFoundError, TrackingError)):
        newsbert.evaluate(bundle.path, str(labelled_file), tracking_uri="http://127.0.0.1:9")


def test_training_rows_in_the_evaluation_are_counted(bundle: Bundle, labelled_file: Path, tmp_path: Path) -> None:
    rows = load_dataset(str(labelled_file))
    names = rows.label_names

    def write(*splits: Split) -> str:
        file = tmp_path / "elsewhere.jsonl"  # the rows are recognized, not the name
        pairs = [pair for split in splits for pair in zip(split.texts, split.labels, strict=True)]
        lines = [json.dumps({"text": f"  {text} ", "label": names[label]}) for text, label in pairs]
        file.write_text("\n".join(lines), encoding="utf-8")
        return str(file)

    events: list[Event] = []
    both = write(rows.train, rows.test)
    result = newsbert.evaluate(bundle.path, both, log=False, on_event=events.append)
    assert result.model.learned_rows == len(rows.train)
    message = f"has learned from {len(rows.train)} of these {len(rows.train) + len(rows.test)} rows"
    assert any(isinstance(event, Note) and message in event.message for event in events)
    assert newsbert.evaluate(bundle.path, write(rows.test), log=False).model.learned_rows == 0


def test_the_training_columns_are_the_default(bundle: Bundle, tmp_path: Path) -> None:
    other = shutil.copytree(bundle.path, tmp_path / "other")
    contract = json.loads((other / "newsbert.json").read_text(encoding="utf-8"))
    contract["data"] |= {"text_column": "kicker", "label_column": "desk"}
    del contract["files"]["learned_texts.sketch"]  # a bundle without a record of its training rows
    (other / "learned_texts.sketch").unlink()
    (other / "newsbert.json").write_text(json.dumps(contract), encoding="utf-8")
    file = tmp_path / "rows.csv"
    file.write_text("text,kicker,desk,label\nstocks market,goal team cup,Sport & loisirs,World\n", encoding="utf-8")
    model = newsbert.evaluate(other, str(file), log=False).model
    assert (model.scores.accuracy, model.scores.per_class["Sport & loisirs"].support) == (1, 1)
    assert model.learned_rows is None
    scores = newsbert.evaluate(other, str(file), text_column="text", label_column="label", log=False).model.scores
    assert (scores.accuracy, scores.per_class["World"].support) == (0, 1)


# The command line


def test_the_command_prints_scores_and_a_sentence(cli: Cli, bundle: Bundle, labelled_file: Path) -> None:
    arguments = ("evaluate", bundle.path, "--data", labelled_file, "--compare-to", bundle.path, "--no-log")
    result = cli(*arguments)
    assert result.returncode == 0, result.stderr
    for words in ("precision", "95% interval", "calibration error", "Économie", "p = 1 (McNemar's exact test)"):
        assert words in result.stdout
    document = json.loads(cli(*arguments, "--json").stdout)
    assert document["rows"] == 90
    assert document["run_id"] is None
    assert set(document["metrics"]) == {"accuracy", "f1_macro", "loss", "calibration_error"}
    assert document["comparison"]["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1.0}


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ([], 2, "--data"),
        (["--data", "nowhere.csv"], 2, "nowhere.csv"),
        (["--data", "rows.csv"], 1, "row 1, column 'label': the model has no label 'Weather'"),
        (["--data", "rows.csv", "--labels", "A,A"], 2, "--labels"),
        (["--data", "rows.csv", "--label-column", "topic"], 1, "'topic'"),
        (["--data", "rows.csv", "--text-column", "body", "--label-column", "topics"], 1, "'topics'"),
        (["--data", "rows.csv", "--runtime", "nonsense"], 2, "nonsense"),
        (["--data", "rows.csv", "--compare-to", "./nowhere"], 1, "nowhere"),
    ],
)
def test_bad_calls_are_errors(
    cli: Cli, bundle: Bundle, tmp_path: Path, more: list[str], code: int, message: str
) -> None:
    _write(tmp_path / "rows.csv", "text,label", "a goal,Weather")
    result = cli("evaluate", bundle.path, *more, "--no-log")
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    *_, error, hint = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert message in error
    assert hint.startswith("Hint: ")


def test_runs_without_a_training_is_an_error(cli: Cli) -> None:
    result = cli("runs")
    assert result.returncode == 1
    assert "there is no tracking database" in result.stderr
    assert "newsbert train" in result.stderr
