"""A bundle's contract: what is read, and what is refused with a reason."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import newsbert
from newsbert.bundle.bundle import RUNTIME_FILES, Bundle, seal
from newsbert.bundle.contract import CONTRACT_FILE, FORMAT_VERSION, LABELS_FILE, Contract
from newsbert.errors import ModelError
from tests.support.tiny_model import LABELS, REVIEW_THRESHOLD


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the trained bundle, to be changed."""
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


def _change_contract(path: Path, **changes: Any) -> None:
    file = path / CONTRACT_FILE
    values = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps(values), encoding="utf-8")


def _get_refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Bundle.read(path)
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value.message


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x01
    file.write_bytes(content)


def _get_fields(contract: Contract) -> dict[str, Any]:
    """A contract's fields as `seal` takes them."""
    return {
        field.name: getattr(contract, field.name) for field in dataclasses.fields(contract) if field.name != "files"
    }


def test_a_trained_bundle_names_every_other_file_with_its_sha256(bundle: Bundle) -> None:
    expected = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in bundle.path.iterdir()
        if file.name != CONTRACT_FILE
    }
    assert bundle.contract.files == expected
    assert bundle.digest == hashlib.sha256((bundle.path / CONTRACT_FILE).read_bytes()).hexdigest()
    assert tuple(bundle.contract.labels) == LABELS
    bundle.verify()


def test_a_contract_is_the_same_after_writing_and_reading(bundle: Bundle) -> None:
    assert Contract.from_json(bundle.contract.to_json()) == bundle.contract


def test_an_altered_file_is_named(bundle: Bundle, copy: Path) -> None:
    for name in bundle.contract.files:
        if name == LABELS_FILE:
            continue
        _damage(copy / name)
        with pytest.raises(ModelError, match="altered") as caught:
            Bundle.read(copy).verify()
        assert str(copy / name) in caught.value.message
        shutil.copy(bundle.path / name, copy / name)
    Bundle.read(copy).verify()


@pytest.mark.parametrize("name", ["extra.bin", ".hidden"])
def test_an_added_file_is_named_by_a_full_check(copy: Path, name: str) -> None:
    (copy / name).write_text("added")
    for only in (RUNTIME_FILES["onnxruntime"], ()):
        Bundle.read(copy).verify(only)
    with pytest.raises(ModelError, match="was added after training") as caught:
        Bundle.read(copy).verify()
    assert str(copy / name) in caught.value.message
    assert caught.value.hint == "look what it is, then move it away"


def test_reformatted_labels_are_an_altered_file(copy: Path) -> None:
    file = copy / LABELS_FILE
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(ModelError, match=LABELS_FILE):
        Bundle.read(copy).verify()


def test_a_missing_file_is_named(bundle: Bundle, copy: Path) -> None:
    for name in set(bundle.contract.files) - {LABELS_FILE}:
        (copy / name).unlink()
        with pytest.raises(ModelError, match="lost") as caught:
            Bundle.read(copy).verify()
        assert name in caught.value.message
        shutil.copy(bundle.path / name, copy / name)


def test_a_directory_instead_of_a_file_is_a_missing_file(copy: Path) -> None:
    (copy / "model.onnx").unlink()
    (copy / "model.onnx").mkdir()
    with pytest.raises(ModelError, match=r"lost .*model\.onnx"):
        Bundle.read(copy).verify()


def test_verify_checks_only_the_named_files(copy: Path) -> None:
    _damage(copy / "README.md")
    Bundle.read(copy).verify(only=RUNTIME_FILES["onnxruntime"])
    _damage(copy / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Bundle.read(copy).verify(only=RUNTIME_FILES["onnxruntime"])


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 1, 0, None, "2", [2], {"major": 2}])
def test_another_format_version_is_refused_with_its_value(copy: Path, version: object) -> None:
    _change_contract(copy, format_version=version)
    message = _get_refusal(copy)
    assert f"format_version is {version!r}" in message
    assert CONTRACT_FILE in message


def test_an_unknown_cleaning_rule_is_named(copy: Path) -> None:
    _change_contract(copy, cleaning=["unicode", "stem-words", "whitespace"])
    assert "'stem-words'" in _get_refusal(copy)


@pytest.mark.parametrize(
    "mapping",
    [
        {"0": LABELS[1], "1": LABELS[0], "2": LABELS[2]},
        {"0": LABELS[0], "1": LABELS[1]},
        {"1": LABELS[0], "2": LABELS[1], "3": LABELS[2]},
        {},
        list(LABELS),
        None,
    ],
)
def test_a_class_mapping_that_differs_from_the_contract_is_refused(copy: Path, mapping: object) -> None:
    (copy / LABELS_FILE).write_text(json.dumps(mapping), encoding="utf-8")
    assert LABELS_FILE in _get_refusal(copy)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, Path.touch, lambda path: None],
    ids=["an empty directory", "a file", "nothing"],
)
def test_a_path_without_a_bundle_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "other")
    assert CONTRACT_FILE in _get_refusal(tmp_path / "other")


def test_a_bundle_without_class_mapping_is_an_error(copy: Path) -> None:
    (copy / LABELS_FILE).unlink()
    assert f"it has no {LABELS_FILE}" in _get_refusal(copy)


@pytest.mark.parametrize("name", [CONTRACT_FILE, LABELS_FILE])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
def test_truncated_json_names_the_file(copy: Path, name: str, fraction: float) -> None:
    content = (copy / name).read_bytes().rstrip()
    (copy / name).write_bytes(content[: int(len(content) * fraction)])
    message = _get_refusal(copy)
    assert name in message
    assert ({CONTRACT_FILE, LABELS_FILE} - {name}).pop() not in message


@pytest.mark.parametrize("name", [CONTRACT_FILE, LABELS_FILE])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"null", b"\x00"])
def test_json_that_cannot_be_read_names_the_file(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    assert name in _get_refusal(copy)


@pytest.mark.parametrize(
    "field",
    [field.name for field in dataclasses.fields(Contract) if field.name not in {"review_threshold", "companion"}],
)
def test_a_contract_without_one_of_its_fields_is_refused(copy: Path, field: str) -> None:
    values = json.loads((copy / CONTRACT_FILE).read_text(encoding="utf-8"))
    del values[field]
    (copy / CONTRACT_FILE).write_text(json.dumps(values), encoding="utf-8")
    assert field in _get_refusal(copy)


def test_an_old_contract_without_threshold_flags_nothing(copy: Path) -> None:
    values = json.loads((copy / CONTRACT_FILE).read_text(encoding="utf-8"))
    assert values.pop("review_threshold") == REVIEW_THRESHOLD
    (copy / CONTRACT_FILE).write_text(json.dumps(values), encoding="utf-8")
    assert Bundle.read(copy).contract.review_threshold == 0


@pytest.mark.parametrize("below", [-0.1, 1.1, "0.9", None, True])
def test_a_threshold_that_is_no_probability_is_refused(copy: Path, below: object) -> None:
    _change_contract(copy, review_threshold=below)
    assert "review_threshold" in _get_refusal(copy)


@pytest.mark.parametrize("temperature", [0, -1, "1.0", None, True])
def test_a_temperature_that_is_not_positive_is_refused(copy: Path, temperature: object) -> None:
    _change_contract(copy, temperature=temperature)
    assert "temperature" in _get_refusal(copy)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def scratch(trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle's two JSON files, to be written over by every example."""
    directory = tmp_path_factory.mktemp("scratch")
    for name in (CONTRACT_FILE, LABELS_FILE):
        shutil.copy(trained[0].bundle / name, directory / name)
    return directory


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from([field.name for field in dataclasses.fields(Contract)]), value=_JSON)
def test_a_contract_with_any_value_anywhere_is_read_or_refused(
    trained: tuple[newsbert.TrainResult, str], scratch: Path, field: str, value: object
) -> None:
    shutil.copy(trained[0].bundle / CONTRACT_FILE, scratch / CONTRACT_FILE)
    _change_contract(scratch, **{field: value})
    try:
        read = Bundle.read(scratch)
    except ModelError as error:
        assert str(scratch) in error.message
    else:
        assert read.contract.format_version == FORMAT_VERSION


def test_sealing_the_same_files_again_gives_the_same_digest(bundle: Bundle, copy: Path) -> None:
    assert seal(copy, _get_fields(bundle.contract)).digest == bundle.digest


def test_the_digest_changes_with_any_file(bundle: Bundle, copy: Path) -> None:
    digests = {bundle.digest}
    for name in set(bundle.contract.files) - {LABELS_FILE}:  # which is written by sealing
        _damage(copy / name)
        sealed = seal(copy, _get_fields(bundle.contract))
        sealed.verify()
        digests.add(sealed.digest)
        shutil.copy(bundle.path / name, copy / name)
    (copy / "another.txt").touch()
    digests.add(seal(copy, _get_fields(bundle.contract)).digest)
    digests.add(seal(copy, _get_fields(bundle.contract) | {"labels": list(reversed(LABELS))}).digest)
    assert len(digests) == len(bundle.contract.files) + 2  # the first; one a file but the labels; another.txt; labels


def test_sealed_files_are_readable_by_any_user(bundle: Bundle, copy: Path) -> None:
    (copy / "model.safetensors").chmod(0o600)
    seal(copy, _get_fields(bundle.contract))
    assert {file.name for file in copy.iterdir() if file.stat().st_mode & 0o444 != 0o444} == set()
