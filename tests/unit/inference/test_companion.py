"""The companion: the same text gets the same bytes everywhere."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CompanionInfo
from newsbert.errors import ModelError
from newsbert.inference.companion import MAX_CHARACTERS, Companion, hash_terms

TEXTS = st.lists(
    st.text(max_size=60) | st.sampled_from(["Stocks fall", "東京株式市場", "🏆⚽ 2:1", "a b a b"]), max_size=30
)

ROWS = {
    "Stocks fall": [469600, 840939, 894670, 574777],
    "Élections à Genève: 3.5%": [
        310064, 118856, 367227, 363183, 464870, 79798, 269514, 550861, 885726, 114128, 992439, 760062, 51089, 994012,
        10444, 455568,
    ],
    "東京 🏆 فاز": [699649, 534039, 685156, 979029, 667221, 745859, 589847, 736921],
    "x\ud800y": [491716, 444766, 685245, 91664, 324545, 860818],
    "": [0, 436800],
}  # fmt: skip
"""Texts with their rows in a table of 2^20: stored bundles depend on them."""


def _make(num_labels: int = 3, num_rows: int = 4096) -> Companion:
    weights = np.random.default_rng(1).integers(-127, 128, (num_rows, num_labels)).astype(np.int8)
    return Companion(weights, CompanionInfo(0.01, [0.1] * num_labels, 0.6, 0.4))


@pytest.mark.parametrize("text", ROWS)
def test_the_hashes_of_words_and_pairs_never_change(text: str) -> None:
    rows, counts = hash_terms([text], 1 << 20)
    assert (rows.tolist(), counts.tolist()) == (ROWS[text], [len(ROWS[text])])


def test_a_smaller_table_has_the_first_bits_of_the_hash() -> None:
    texts = list(ROWS)
    large, small = (hash_terms(texts, rows)[0] for rows in (1 << 20, 1 << 12))
    assert (large >> 8).tolist() == small.tolist()


def test_case_and_white_space_do_not_matter_and_order_does() -> None:
    rows = [hash_terms([text], 1 << 20)[0].tolist() for text in ("Cup final", "cup  FINAL", "final cup")]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


@given(TEXTS)
def test_a_text_gets_the_same_bytes_alone_and_in_any_batch(texts: list[str]) -> None:
    companion = _make()
    together = companion.predict(texts)
    assert together.shape == (len(texts), 3)
    assert np.isfinite(together).all()
    for text, row in zip(texts, together, strict=True):
        assert companion.predict([text])[0].tobytes() == row.tobytes()
    assert companion.predict([*texts, *texts, *(["x y z"] * 300)])[: len(texts)].tobytes() == together.tobytes()


def test_other_processes_give_the_same_bytes(tmp_path: Path) -> None:
    file, texts = tmp_path / "companion.npy", list(ROWS)
    companion = _make()
    companion.save(file)
    program = f"""
import numpy, sys
from pathlib import Path
from newsbert.bundle.contract import CompanionInfo
from newsbert.inference.companion import Companion
companion = Companion.load(Path({str(file)!r}), CompanionInfo(0.01, [0.1] * 3, 0.6, 0.4))
sys.stdout.write(companion.predict({texts!a}).tobytes().hex())
"""
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed}
        printed = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
        assert printed.stdout.decode() == companion.predict(texts).tobytes().hex()


def test_it_needs_neither_torch_nor_sklearn() -> None:
    program = "import sys, newsbert.inference.companion; print(*{'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == ""


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "東京" * 500_000, "🏆" * 10**6, "\u200b", " \t\n", "a b " * 250_000, "\ud800" * 1000]
)
def test_hostile_texts_are_read_up_to_a_limit(text: str) -> None:
    companion = _make()
    assert companion.predict([text]).tobytes() == companion.predict([text[:MAX_CHARACTERS]]).tobytes()


@pytest.mark.parametrize(
    "weights",
    [
        np.zeros((4096, 2), np.int8),
        np.zeros((4095, 3), np.int8),
        np.zeros((0, 3), np.int8),
        np.zeros((4096, 3), np.float32),
        np.zeros(4096, np.int8),
    ],
)
def test_weights_that_do_not_fit_the_contract_are_refused(weights: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "companion.npy"
    np.save(file, weights)
    with pytest.raises(ModelError, match=r"companion\.npy cannot be loaded"):
        Companion.load(file, CompanionInfo(0.01, [0.0] * 3, 0.6, 0.4))


def test_attack_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "companion.npy"
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Companion.load(file, CompanionInfo(0.01, [0.0] * 3, 0.6, 0.4))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda info: dataclasses.replace(info, bias=info.bias[1:]), "biases for"),
        (lambda info: dataclasses.replace(info, scale=-1.0), "companion's scale is -1.0"),
        (lambda info: dataclasses.replace(info, companion_weight=1e9), "companion's companion_weight"),
        (lambda info: dataclasses.replace(info, threshold=1.5), "companion's threshold is 1.5"),
        (lambda info: dataclasses.replace(info, golden=info.golden[1:]), "golden answers instead of"),
    ],
)
def test_a_contract_with_an_impossible_companion_is_refused(
    change: Callable[[CompanionInfo], CompanionInfo], reason: str, bundle: Bundle
) -> None:
    info = bundle.contract.companion
    assert info is not None
    contract = dataclasses.replace(bundle.contract, companion=change(info))
    with pytest.raises(ValueError, match=reason):
        type(contract).from_json(contract.to_json())
