"""Labelled rows of the Hugging Face Hub, in small copies of its layout."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.tables import AG_NEWS, Table, write

# --- the Hugging Face Hub ---------------------------------------------------------------------------------------------

# `datasets` reads its environment when it is imported: a process of its own, once for all tests.
HUB_PROGRAM = """
import json, sys
from newsbert.data.dataset import load_dataset
from newsbert.errors import NewsbertError

answers = []
for name, options in json.loads(sys.stdin.read()):
    try:
        dataset = load_dataset(name, **options)
        splits = {split: [list(getattr(dataset, split).texts), getattr(dataset, split).labels.tolist()] for split in ("train", "validation", "test")}
        answers.append({"labels": dataset.label_names, "notes": dataset.notes, **splits})
    except NewsbertError as error:
        answers.append({"error": type(error).__name__, "message": error.message, "hint": error.hint})
print(json.dumps(answers))
"""  # noqa: E501
HUB_CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
{features}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
# A data set
"""


def class_label(column: str, names: Sequence[str]) -> str:
    lines = [f"  - name: {column}", "    dtype:", "      class_label:", "        names:"]
    return "\n".join([*lines, *(f"          '{index}': {name}" for index, name in enumerate(names))])


def write_hub_layout(directory: Path, features: str, **splits: Table) -> None:
    for split, table in splits.items():
        write(directory / "data" / f"{split}-00000-of-00001.parquet", table)
    (directory / "README.md").write_text(HUB_CARD.format(features=features))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `data.load` answers in a working directory with data sets in the Hub's layout, offline."""
    directory = tmp_path_factory.mktemp("hub")
    ag_news = {
        split: [{"text": f"{split} {n}", "label": n % 4} for n in range(count)]
        for split, count in (("train", 40), ("test", 8))
    }
    write_hub_layout(directory / "ag_news", class_label("label", AG_NEWS), **ag_news)
    fine = {
        split: [{"text": f"{split} {n}", "coarse": n % 2, "fine": n % 3} for n in range(count)]
        for split, count in (("train", 30), ("test", 6))
    }
    both = class_label("coarse", ["Ja", "Nein"]) + "\n" + class_label("fine", ["rot", "grün", "blau"])
    write_hub_layout(directory / "two_labels", both, **fine)
    hidden = [{"text": f"hidden {n}", "label": -1} for n in range(5)]
    write_hub_layout(directory / "hidden", class_label("label", AG_NEWS), train=ag_news["train"], test=hidden)
    (directory / "empty").mkdir()
    (directory / "broken" / "data").mkdir(parents=True)
    (directory / "broken" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 nonsense")
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "by name": ("ag_news", {}),
        "by path": (str(directory / "ag_news"), {}),
        "renamed": ("ag_news", {"labels": ["W", "S", "B", "T"], "samples": 8}),
        "fine": ("two_labels", {"label_column": "fine"}),
        "coarse": ("two_labels", {"label_column": "coarse"}),
        "hidden": ("hidden", {}),
        "empty": ("empty", {}),
        "broken": ("broken", {}),
        "unreachable": ("nobody/nothing", {}),
        "unreachable, one word": ("imdb", {}),
        "no name": ("not a name!", {}),
    }
    answer = subprocess.run(
        [sys.executable, "-c", HUB_PROGRAM],
        input=json.dumps(list(calls.values())),
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
        env={
            **os.environ,
            "NEWSBERT_CACHE_DIR": str(directory / "cache"),
            "HF_HOME": str(directory / "home"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        },
    )
    return dict(zip(calls, json.loads(answer.stdout), strict=True))


def test_a_directory_in_the_hubs_layout_takes_its_label_names_from_the_features(hub: dict[str, Any]) -> None:
    dataset = hub["by name"]
    assert tuple(dataset["labels"]) == AG_NEWS
    assert dataset["test"] == [[f"test {n}" for n in range(8)], [n % 4 for n in range(8)]]
    texts, labels = ([*a, *b] for a, b in zip(dataset["train"], dataset["validation"], strict=True))
    assert dict(zip(texts, labels, strict=True)) == {f"train {n}": n % 4 for n in range(40)}
    assert sorted(dataset["validation"][1]) == [0, 1, 2, 3]
    assert dataset["notes"] == []


def test_a_hub_data_set_loads_by_path_or_name(hub: dict[str, Any]) -> None:
    assert hub["by path"] == hub["by name"]


def test_labels_rename_the_hubs_classes(hub: dict[str, Any]) -> None:
    assert hub["renamed"]["labels"] == ["W", "S", "B", "T"]
    assert hub["renamed"]["test"] == hub["by name"]["test"]
    assert sorted(hub["renamed"]["train"][1]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_label_names_come_from_the_configured_label_column(hub: dict[str, Any]) -> None:
    assert hub["fine"]["labels"] == ["rot", "grün", "blau"]
    assert hub["fine"]["test"][1] == [n % 3 for n in range(6)]
    assert hub["coarse"]["labels"] == ["Ja", "Nein"]
    assert hub["coarse"]["test"][1] == [n % 2 for n in range(6)]


def test_hidden_test_labels_are_skipped_and_test_rows_drawn(hub: dict[str, Any]) -> None:
    dataset = hub["hidden"]
    assert dataset["notes"] == ["5 rows without text or label were left out"]
    assert sorted(dataset["test"][1]) == [0, 1, 2, 3]
    assert sorted([*dataset["train"][0], *dataset["validation"][0], *dataset["test"][0]]) == sorted(
        f"train {n}" for n in range(40)
    )


@pytest.mark.parametrize("call", ["unreachable", "unreachable, one word", "no name", "empty", "broken"])
def test_a_data_set_that_cannot_be_loaded_is_named(call: str, hub: dict[str, Any]) -> None:
    name = {"unreachable": "nobody/nothing", "unreachable, one word": "imdb", "no name": "not a name!"}.get(call, call)
    assert hub[call]["error"] == "DataError"
    assert f"no data set {name!r} could be loaded: " in hub[call]["message"]
    assert "--data" in hub[call]["hint"]
