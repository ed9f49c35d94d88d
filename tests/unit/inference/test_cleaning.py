"""A text is cleaned once, by the rules of the bundle; those that are installed may be others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.data import dataset
from newsbert.data.evaluation_set import labelled
from newsbert.errors import BadRequestError
from newsbert.inference.batch.predict_file import predict_file
from newsbert.inference.items import predict_items
from newsbert.inference.model import Model
from newsbert.inference.runtime import load_runtime
from tests.support.tiny_model import LABELS

FEW_RULES = ["unicode", "whitespace"]
TEXTS = ["<br>", "a goal &amp;lt;b&amp;gt; for the team", "&nbsp;", r"stocks \ market", "a treaty"]
"""Texts that the other rules change; the first and the third have nothing left of them then."""


@pytest.fixture
def bundle_with_few_rules(bundle: Bundle, tmp_path: Path) -> Bundle:
    path = shutil.copytree(bundle.path, tmp_path / "few")
    contract = json.loads((path / CONTRACT_FILE).read_text(encoding="utf-8"))
    (path / CONTRACT_FILE).write_text(json.dumps(contract | {"cleaning": FEW_RULES}), encoding="utf-8")
    return Bundle.read(path)


def _write(file: Path) -> Path:
    file.write_text("".join(json.dumps({"text": text, "label": LABELS[0]}) + "\n" for text in TEXTS))
    return file


def _predict_scores(model: Model, directory: Path) -> list[object]:
    """The scores of the texts as rows of a file; `None` for a row without an answer."""
    output = directory / "out.jsonl"
    done = predict_file(model, _write(directory / "in.jsonl"), output, None, lambda *_: None)
    return [json.loads(line)[done.columns[1]] for line in output.read_text(encoding="utf-8").splitlines()]


def test_every_way_to_predict_applies_the_rules_of_the_bundle_alone(
    bundle_with_few_rules: Bundle, tmp_path: Path
) -> None:
    model = Model(bundle_with_few_rules)
    # These texts are as their bundle's rules leave them.
    expected = load_runtime(bundle_with_few_rules, model.runtime).predict_prepared(TEXTS)
    assert np.abs(model.probabilities(TEXTS) - expected).max() < 1e-5
    scores = [pytest.approx(float(row.max()), abs=1e-5) for row in expected]
    assert [prediction.score for prediction in predict_items(model, TEXTS)] == scores
    assert _predict_scores(model, tmp_path) == scores


def test_rows_without_text_are_those_of_the_bundles_rules(
    bundle: Bundle, bundle_with_few_rules: Bundle, tmp_path: Path
) -> None:
    file = _write(tmp_path / "rows.jsonl")
    for tested, texts in ((bundle_with_few_rules, TEXTS), (bundle, [TEXTS[1], *TEXTS[3:]])):
        rules = tested.contract.cleaning
        assert dataset.read_items(file, rules) == texts
        assert labelled(str(file), LABELS, cleaning=[rules]).items == texts
    both = [bundle.contract.cleaning, FEW_RULES]
    assert labelled(str(file), LABELS, cleaning=both).items == [TEXTS[1], *TEXTS[3:]]


def test_what_only_the_bundles_rules_empty_is_refused_by_itself(bundle: Bundle, tmp_path: Path) -> None:
    model = Model(bundle)
    assert [score is None for score in _predict_scores(model, tmp_path)] == [True, False, True, False, False]
    with pytest.raises(BadRequestError, match=r"^text 3: the text is empty$"):
        predict_items(model, [TEXTS[1], TEXTS[3], TEXTS[0]])
