"""Explanations: they add up, they point at the words that matter, and every interface gives the same ones."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.inference import explanation
from newsbert.inference.explanation import INTEGRATED_GRADIENTS, SHAPLEY_SAMPLING, TOLERANCE, Explanation
from newsbert.inference.model import Model
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS, WORDS

TEXT = "the goal of the team,  some &amp; more"
RUNTIMES = {"onnxruntime": SHAPLEY_SAMPLING, "torch": INTEGRATED_GRADIENTS}


@pytest.fixture(scope="module")
def read(trained: tuple[newsbert.TrainResult, str]) -> Bundle:
    return Bundle.read(trained[0].bundle).without_companion()


@pytest.fixture(scope="module", params=RUNTIMES)
def model(read: Bundle, request: pytest.FixtureRequest) -> Iterator[Model]:
    yield Model(read, runtime=request.param)


def test_attributions_sum_to_what_the_words_change(model: Model) -> None:
    for label in (None, *LABELS):
        (explained,) = model.explain([TEXT], label=label)
        assert explained.method == RUNTIMES[model.runtime]
        assert explained.prediction == model.predict([TEXT])[0]
        assert explained.label == (label or explained.prediction.label)
        assert explained.text == "the goal of the team, some & more"
        assert [word.text for word in explained.words] == explained.text.split()
        assert all(explained.text[word.start : word.end] == word.text for word in explained.words)
        assert abs(explained.gap) <= TOLERANCE
        if explained.method == SHAPLEY_SAMPLING:
            changed = explained.prediction.probabilities[explained.label] - _of_nothing(model, explained.label)
            assert sum(word.attribution for word in explained.words) == pytest.approx(changed, abs=2e-3)


def _of_nothing(model: Model, label: str) -> float:
    """The probability of a text that no token is read of: a zero-width space."""
    return model.predict(["\u200b"])[0].probabilities[label]


def test_the_words_of_a_label_count_most_for_it_and_against_another(read: Bundle) -> None:
    # By sampled Shapley values: the tests' tiny encoder, between a text and none, passes through answers of its own.
    model = Model(read, runtime="onnxruntime")
    neutral = model.predict(["number 3"])[0].label
    for label in set(LABELS) - {neutral}:
        one, other = WORDS[label][:2]
        (explained,) = model.explain([f"{one} {other} number 3"])
        assert explained.label == label
        assert max(explained.words, key=lambda word: word.attribution).text in {one, other}
        (against,) = model.explain([f"{one} {other} number 3"], label=neutral)
        assert sum(word.attribution for word in against.words if word.text in {one, other}) < 0


def test_only_what_is_read_of_a_long_text_is_explained(model: Model) -> None:
    (explained,) = model.explain(["goal " * 400])
    assert len(explained.words) == model.bundle.contract.max_length - 2
    assert len(explained.text) > explained.words[-1].end
    assert abs(explained.gap) <= TOLERANCE


def test_a_text_of_which_nothing_is_read_has_no_words_that_matter(model: Model) -> None:
    (explained,) = model.explain(["\u200b"])
    assert all(word.attribution == 0 for word in explained.words)
    assert abs(explained.gap) <= TOLERANCE


def test_the_same_text_is_explained_in_the_same_way_again_and_survives_json(model: Model) -> None:
    (one,), (again,) = model.explain([TEXT]), model.explain([{"title": "the goal", "text": "of the team, some & more"}])
    assert one == again
    document = json.loads(json.dumps(one.to_dict()))
    assert Explanation.from_dict(document).to_dict() == document


def test_what_cannot_be_explained_is_an_error(model: Model) -> None:
    with pytest.raises(ValueError, match="there is no label 'Weather': "):
        model.explain(["goal"], label="Weather")
    with pytest.raises(ValueError, match="the text is empty"):
        model.explain([" "])


def test_without_captum_words_are_taken_away(read: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    (explained,) = Model(read, runtime="torch").explain(["some goal"])
    assert explained.method == SHAPLEY_SAMPLING


def test_words_are_taken_away_a_bounded_number_of_times(read: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(read, runtime="onnxruntime")
    batch_sizes: list[int] = []
    predict = model._runtime.predict_prepared

    def counted(texts: Sequence[str], *more: Any, **options: Any) -> Any:
        batch_sizes.append(len(texts))
        return predict(texts, *more, **options)

    monkeypatch.setattr(model._runtime, "predict_prepared", counted)
    model.explain(["some goal", " ".join(["some goal team"] * 10)])
    assert 3 < max(batch_sizes) <= explanation.EVALUATIONS + 2


def test_the_command_shows_words_and_numbers(trained: tuple[newsbert.TrainResult, str], cli: Cli) -> None:
    bundle = str(trained[0].bundle)
    shown = cli("explain", "--model", bundle, "some more goal")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert (
        "some more goal" in shown.stdout and "by sampled Shapley values" in shown.stdout and "\x1b[" not in shown.stdout
    )
    document = json.loads(cli("explain", "--model", bundle, "--json", "--label", LABELS[0], "some more goal").stdout)
    assert document["explanation"]["label"] == LABELS[0]
    assert [word["text"] for word in document["explanation"]["words"]] == ["some", "more", "goal"]
    for arguments, message in (
        (("--label", "Weather", "goal"), "there is no label 'Weather'"),
        ((" ",), "the text is empty"),
        (("--url", "http://127.0.0.1:9", "--runtime", "torch", "goal"), "--url and --runtime exclude each other"),
    ):
        refused = cli("explain", *(() if "--url" in arguments else ("--model", bundle)), *arguments)
        assert refused.returncode == 2 and message in refused.stderr
