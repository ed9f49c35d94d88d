"""Bundles of an attacker, sealed again: no contract and no tokenizer does more than be refused."""

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle, class_mapping, sha256_of
from newsbert.bundle.contract import CONTRACT_FILE, LABELS_FILE
from newsbert.errors import NewsbertError

TOKENIZER_FILE = "tokenizer.json"
TEXTS = ["goal team", "\x1b[2J" + "shares fall " * 200]
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 10**30, 1e-300, 1e308, -0.5, float("nan"), "", "x", "../../etc/passwd", "\x1b[2J",
    "\u202efdp", "\ud800", "a" * 100_000, [], [[]], [None], ["x", "x"], {}, {"x": None}, {"../x": "y"},
    ["\x1b]0;x\x07", "b"],
]  # fmt: skip
NUM_CONTRACTS, NUM_TOKENIZERS = 300, 96


def _list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something stands in a JSON value, but for the many entries of a vocabulary."""
    if place:
        yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts)[:20]:
        yield from _list_places(part, (*place, key))


def _mutate(value: Any, generator: random.Random) -> str:
    """Change, remove or add something at one place; return what was done."""
    *path, last = generator.choice(list(_list_places(value)))
    for key in path:
        value = value[key]
    done = generator.choice(["change", "change", "change", "remove", "add"])
    chosen = generator.choice(VALUES)
    if done == "remove":
        del value[last]
    elif done == "add" and isinstance(value, list):
        value.append(chosen)
    elif done == "add":
        value["added"] = chosen
    else:
        value[last] = chosen
    return f"{done} {[*path, last]} {chosen!r:.40}"


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle of links: a file that is written is another one first."""
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


def _write(file: Path, content: str) -> None:
    file.unlink()
    file.write_bytes(content.encode("utf-8", "surrogatepass"))


def _seal(directory: Path, contract: dict[str, Any]) -> None:
    labels = contract.get("labels")
    if isinstance(labels, list):
        _write(directory / LABELS_FILE, json.dumps(class_mapping(labels)))
    if isinstance(contract.get("files"), dict):
        for name in {LABELS_FILE, TOKENIZER_FILE} & contract["files"].keys():
            contract["files"][name] = sha256_of(directory / name)
    _write(directory / CONTRACT_FILE, json.dumps(contract))


def _check_answered_or_refused(directory: Path) -> bool:
    """Return whether it was answered, with the form that answers have.

    Raises:
        Exception: If it was neither.
    """
    try:
        model = newsbert.load(directory)
        answers = model.predict(TEXTS)
    except NewsbertError as error:
        assert error.message
        return False
    labels = model.bundle.contract.labels
    assert all(
        answer.label in labels and math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-3)
        for answer in answers
    )
    return True


def _attack(directory: Path, count: int, mutate: Callable[[random.Random], str]) -> None:
    original = {name: (directory / name).read_text() for name in (CONTRACT_FILE, LABELS_FILE, TOKENIZER_FILE)}
    outcomes, failures = [], []
    for seed in range(count):
        for name, content in original.items():
            _write(directory / name, content)
        done = mutate(random.Random(seed))
        try:
            outcomes.append(_check_answered_or_refused(directory))
        except Exception as error:
            failures.append(f"{seed}: {done}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)[:5000]
    assert True in outcomes
    assert outcomes.count(False) > count // 3


def test_attack_contracts_that_training_never_writes(copy: Path) -> None:
    def mutate(generator: random.Random) -> str:
        contract = json.loads((copy / CONTRACT_FILE).read_text())
        done = _mutate(contract, generator)
        _seal(copy, contract)
        return done

    _attack(copy, NUM_CONTRACTS, mutate)


def test_attack_tokenizers_that_training_never_writes(copy: Path) -> None:
    def mutate(generator: random.Random) -> str:
        contract = json.loads((copy / CONTRACT_FILE).read_text())
        text = (copy / TOKENIZER_FILE).read_text()
        if generator.random() < 0.3:
            at = generator.randrange(len(text))
            content, done = text[:at] + chr(generator.randrange(256)) + text[at + 1 :], f"a character at {at}"
        else:
            tokenizer = json.loads(text)
            done = _mutate(tokenizer, generator)
            content = json.dumps(tokenizer)
        _write(copy / TOKENIZER_FILE, content)
        _seal(copy, contract)
        return done

    _attack(copy, NUM_TOKENIZERS, mutate)
