"""Model archives: what is in them, what they say of themselves, and what is no archive."""

import hashlib
import json
import os
import shutil
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import newsbert
from newsbert.bundle.bundle import Bundle, files_of
from newsbert.core import zip_files
from newsbert.core.settings import ServeSettings
from newsbert.errors import ModelError, NewsbertError
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import archive
from newsbert.serving.archive import ARCHIVE_NAME, ArchiveInfo, served
from newsbert.serving.handler import Handler
from tests.support.cli import Cli

SERVING = {"tokenizer.json", "class_mapping.json", "companion.npy", "newsbert.json"}
OWN = {"handler.py", "model-config.yaml", "MAR-INF/MANIFEST.json"}


@pytest.fixture(scope="module")
def made(trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the trained bundle; not to be changed."""
    directory = tmp_path_factory.mktemp("store")
    settings = ServeSettings(workers=3, batch_size=7, batch_delay_ms=11)
    return archive.write(Bundle.read(trained[0].bundle), directory, "TinyModel/1", settings)


def _list_names(bundle: Bundle) -> set[str]:
    """Of all files in an archive of the bundle."""
    return {*bundle.names(resolve_runtime(bundle))} | OWN


def _read_contents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as content:
        assert content.testzip() is None
        return {name: content.read(name) for name in content.namelist()}


def test_an_archive_has_only_files_of_the_default_runtime(made: Path, bundle: Bundle) -> None:
    contents = _read_contents(made)
    assert set(contents) == _list_names(bundle)
    for name in _list_names(bundle) - OWN:
        assert contents[name] == (bundle.path / name).read_bytes()
    assert b"def handle(" in contents["handler.py"]
    assert made.name == "news_classification.mar"


@pytest.mark.parametrize(
    ("compression", "message"),
    [
        (zipfile.ZIP_STORED, r"its 'model-config\.yaml' is too large"),
        (zipfile.ZIP_DEFLATED, r"its 'model-config\.yaml' is compressed"),
        (zipfile.ZIP_BZIP2, r"its 'model-config\.yaml' is compressed"),
        (zipfile.ZIP_LZMA, r"its 'model-config\.yaml' is compressed"),
    ],
)
def test_attack_a_huge_configuration_is_refused(tmp_path: Path, compression: int, message: str) -> None:
    hostile = tmp_path / "hostile.mar"
    with zipfile.ZipFile(hostile, "w", compression) as content:
        content.writestr(archive.CONFIG_NAME, b" " * (64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=message):
            served(hostile)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [0, 10, 200])
def test_attack_a_truncated_archive_is_refused(made: Path, tmp_path: Path, length: int) -> None:
    cut = tmp_path / "cut.mar"
    cut.write_bytes(made.read_bytes()[:length])
    with pytest.raises(ModelError, match="is no newsbert model archive"):
        served(cut)


def test_an_archive_for_torch_has_only_files_of_torch(bundle: Bundle, tmp_path: Path) -> None:
    contents = _read_contents(archive.write(bundle, tmp_path, "TinyModel/1", ServeSettings(runtime="torch")))
    assert set(contents) == (SERVING | {"config.json", "model.safetensors"}) | OWN
    assert contents["model.safetensors"] == (bundle.path / "model.safetensors").read_bytes()


def test_an_archive_for_torch_answers(bundle: Bundle, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive.write(bundle, tmp_path, "TinyModel/1", ServeSettings(runtime="torch"))) as content:
        content.extractall(tmp_path / "unpacked")
    Handler(tmp_path / "unpacked", "TinyModel/1", "torch")  # checks the files and predicts with them


def test_an_unknown_runtime_is_refused(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    refused = cli("export", "archive", bundle.path, "--runtime", "tensorrt", "--output-dir", "store")
    assert refused.returncode == 2
    assert "'tensorrt'" in refused.stderr
    assert not (tmp_path / "store").exists()


def test_the_manifest_names_model_handler_and_configuration(made: Path) -> None:
    manifest = json.loads(_read_contents(made)["MAR-INF/MANIFEST.json"])
    assert manifest["model"]["modelName"] == "news_classification"
    assert manifest["model"]["handler"] == "handler.py"
    assert manifest["model"]["configFile"] == "model-config.yaml"
    assert "serializedFile" not in manifest["model"]


def test_the_configuration_has_the_serve_settings(made: Path, bundle: Bundle) -> None:
    config = json.loads(_read_contents(made)["model-config.yaml"])
    assert (config["minWorkers"], config["maxWorkers"]) == (3, 3)
    assert (config["batchSize"], config["maxBatchDelay"]) == (7, 11)
    assert config["newsbert"] == {"model": "TinyModel/1", "runtime": resolve_runtime(bundle), "workers": 3}


def test_weights_are_stored_uncompressed(made: Path) -> None:
    with zipfile.ZipFile(made) as content:
        assert {info.compress_type for info in content.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_archives_are_reproducible(
    trained: tuple[newsbert.TrainResult, str], tmp_path: Path, cli: Cli, runtime: str
) -> None:
    """Of another copy, at another time, with other dates and rights of the files, by another user's settings."""
    options = ("--name", "TinyModel/1", "--runtime", runtime, "--workers", 2, "--batch-size", 7, "--json")
    first = json.loads(
        cli("export", "archive", "TinyModel/1", *options, "--output-dir", "a", "--tracking-uri", trained[1]).stdout
    )
    copy = Path(shutil.copytree(trained[0].bundle, tmp_path / "another place"))
    for file in copy.iterdir():
        os.utime(file, (0, 0))
        file.chmod(0o600)
    time.sleep(2)  # the smallest step of a time in a zip file
    before = os.umask(0o077)
    try:
        second = json.loads(cli("export", "archive", copy, *options, "--output-dir", "b", TZ="Asia/Tokyo").stdout)
    finally:
        os.umask(before)
    assert first["model"] == second["model"] == "TinyModel/1"
    contents = [Path(result["archive"]).read_bytes() for result in (first, second)]
    assert contents[0] == contents[1]
    assert [result["sha256"] for result in (first, second)] == [
        hashlib.sha256(content).hexdigest() for content in contents
    ]
    assert [file.name for file in (tmp_path / "a").iterdir()] == [ARCHIVE_NAME]


def test_a_directorys_archive_does_not_depend_on_its_name(bundle: Bundle, tmp_path: Path, cli: Cli) -> None:
    copy = shutil.copytree(bundle.path, tmp_path / "copy")
    results = [
        cli("export", "archive", directory, "--output-dir", tmp_path / directory.name)
        for directory in (bundle.path, Path(copy))
    ]
    assert [result.returncode for result in results] == [0, 0]
    files = [Path(result.stdout.strip()) for result in results]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert served(files[0]).model == f"bundle {bundle.digest[:12]}"


def test_an_archive_contains_no_time_or_user(made: Path) -> None:
    with zipfile.ZipFile(made) as content:
        assert content.namelist() == sorted(content.namelist())
        assert {info.date_time for info in content.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in content.infolist()} == {0o644}
    assert json.loads(_read_contents(made)["MAR-INF/MANIFEST.json"])["createdOn"] == "01/01/1980 00:00:00"


def test_large_files_are_not_held_in_memory(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(200_000_000)
    tracemalloc.start()
    try:
        zip_files.write(tmp_path / "zip", {"large": large, "small": b"x"})
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    with zipfile.ZipFile(tmp_path / "zip") as content:
        assert [info.file_size for info in content.infolist()] == [200_000_000, 1]


@pytest.mark.parametrize("name", ["TinyModel/1", "Modèle d'été/2", "run 0123", "a: 'b' \"c\"\n# d", ""])
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_an_archive_names_its_model(bundle: Bundle, tmp_path: Path, name: str, runtime: str) -> None:
    assert served(archive.write(bundle, tmp_path, name, ServeSettings(runtime=runtime))) == ArchiveInfo(name, runtime)


def test_an_archive_is_replaced_without_leftovers(bundle: Bundle, tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    for name in ("first", "second"):
        assert archive.write(bundle, store, name, ServeSettings()) == store / ARCHIVE_NAME
        assert [file.name for file in store.iterdir()] == [ARCHIVE_NAME]
    assert served(store / ARCHIVE_NAME).model == "second"


def _alter(bundle: Bundle, directory: Path) -> Bundle:
    path = Path(shutil.copytree(bundle.path, directory / "altered"))
    with (path / files_of(resolve_runtime(bundle))[0]).open("r+b") as stream:
        stream.seek(1000)
        byte = stream.read(1)
        stream.seek(1000)
        stream.write(bytes([byte[0] ^ 1]))
    return Bundle.read(path)


def test_an_altered_bundle_writes_no_archive(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.*\.onnx was altered"):
        archive.write(_alter(bundle, tmp_path), tmp_path / "store", "TinyModel/1", ServeSettings())
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("make", [lambda path: (path / ARCHIVE_NAME).mkdir(parents=True), Path.touch])
def test_a_write_error_leaves_no_partial_file(bundle: Bundle, tmp_path: Path, make: Callable[[Path], None]) -> None:
    store = tmp_path / "store"
    make(store)
    with pytest.raises(NewsbertError, match="cannot be written"):
        archive.write(bundle, store, "TinyModel/1", ServeSettings())
    assert not [file for file in tmp_path.rglob("*") if "partial" in file.name]


@pytest.mark.parametrize("name", ["with, comma", "with [brackets]", "with * star", "ünï cödé", "a:b"])
def test_any_directory_name_can_be_packed(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / name))
    made = archive.write(Bundle.read(path), tmp_path, name, ServeSettings())
    assert set(_read_contents(made)) == _list_names(bundle)


def test_files_of_any_age_can_be_packed(bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "old"))
    for file in path.iterdir():
        os.utime(file, (0, 0))  # as reproducible builds set it; before what a zip file can say
    assert set(_read_contents(archive.write(Bundle.read(path), tmp_path, "x", ServeSettings()))) == _list_names(bundle)


def test_archives_can_be_written_concurrently(bundle: Bundle, tmp_path: Path) -> None:
    def make(number: int) -> Path:
        return archive.write(bundle, tmp_path / str(number), f"TinyModel/{number}", ServeSettings())

    with ThreadPoolExecutor(4) as pool:
        for number, made in enumerate(pool.map(make, range(8))):
            assert served(made).model == f"TinyModel/{number}"
            assert set(_read_contents(made)) == _list_names(bundle)


def _write_zip(file: Path, **entries: str) -> None:
    with zipfile.ZipFile(file, "w") as content:
        for name, text in entries.items():
            content.writestr(name.replace("_", "-") + ".yaml", text)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda file: None, id="nothing"),
        pytest.param(Path.mkdir, id="a directory"),
        pytest.param(Path.touch, id="an empty file"),
        pytest.param(lambda file: file.write_text("text"), id="text"),
        pytest.param(lambda file: _write_zip(file, other="{}"), id="no configuration"),
        pytest.param(lambda file: _write_zip(file, model_config="minWorkers: 1\n"), id="another's configuration"),
        pytest.param(lambda file: _write_zip(file, model_config='{"minWorkers": 1}'), id="no part for newsbert"),
        pytest.param(lambda file: _write_zip(file, model_config="[]"), id="a list"),
        pytest.param(lambda file: _write_zip(file, model_config='{"newsbert": null}'), id="null"),
        pytest.param(lambda file: _write_zip(file, model_config="[" * 100_000), id="deep nesting"),
    ],
)
def test_an_invalid_archive_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    file = tmp_path / "x.mar"
    make(file)
    with pytest.raises(ModelError, match="no newsbert model archive") as caught:
        served(file)
    assert str(file) in caught.value.message


@pytest.fixture(scope="module")
def small(made: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of the settings alone."""
    file = tmp_path_factory.mktemp("small") / ARCHIVE_NAME
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("model-config.yaml", _read_contents(made)["model-config.yaml"])
    assert served(file) == served(made)
    return file.read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused(
    small: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(small[: data.draw(st.integers(0, len(small)), label="length")])
    for position in data.draw(st.lists(st.integers(0, len(small) - 1), max_size=3), label="changed"):
        if position < len(content):
            content[position] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.getbasetemp() / "damaged.mar"
    file.write_bytes(content)
    try:
        served(file)
    except ModelError as error:
        assert str(file) in error.message
