"""Archives that would do more than answer: they are refused, with the reason, before anything is unpacked."""

import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ServeSettings
from newsbert.errors import ModelError
from newsbert.serving import archive, archive_check
from tests.support.cli import Cli

Files = dict[str, bytes]
CONFIG, MANIFEST = "model-config.yaml", "MAR-INF/MANIFEST.json"


@pytest.fixture(params=["onnxruntime", "torch"])
def good(bundle: Bundle, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return archive.write(
        bundle, tmp_path / "good", "TinyModel/1", ServeSettings(runtime=request.param, review_threshold=0.5)
    )


@pytest.fixture
def files(bundle: Bundle, tmp_path: Path) -> Files:
    made = archive.write(bundle, tmp_path / "good", "TinyModel/1", ServeSettings(runtime="onnxruntime"))
    with zipfile.ZipFile(made) as content:
        return {name: content.read(name) for name in content.namelist()}


def _write(file: Path, files: Files, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as content:
        for name, held in files.items():
            content.writestr(name, held)
    return file


def _change(name: str, key: str, value: object) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        document = json.loads(files[name])
        (document["model"] if name == MANIFEST and key not in {"runtime", "x"} else document)[key] = value
        files[name] = json.dumps(document).encode()

    return change


def _add(name: str, content: bytes = b"import os; os.system('touch planted')") -> Callable[[Files], None]:
    return lambda files: files.update({name: content})


def test_an_archive_of_newsbert_is_accepted(good: Path) -> None:
    archive_check.check(good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_add("../planted.py"), "it holds '../planted.py'"),
        (_add("../../../../../tmp/planted"), "it holds"),
        (_add("/tmp/planted"), "it holds '/tmp/planted'"),
        (_add("a/../handler.py"), "it holds"),
        (_add("..\\planted"), "it holds"),
        (_add("requirements.txt", b"evil==1.0"), "it holds 'requirements.txt'"),
        (_add("torch.py"), "it holds 'torch.py'"),
        (_add("numpy/__init__.py"), "it holds 'numpy/__init__.py'"),
        (_add("model.pt"), "it holds 'model.pt'"),
        (_add("model.pth"), "it holds 'model.pth'"),
        (_add("empty/", b""), "it holds 'empty/'"),
        (lambda files: files.pop("model.onnx"), "it holds 'model.onnx' 0 times"),
        (lambda files: files.pop("handler.py"), "it holds 'handler.py' 0 times"),
        (lambda files: files.update({"handler.py": files["handler.py"] + b"\n"}), "its handler.py is not that of"),
        (_change(MANIFEST, "handler", "model.onnx"), "names 'model.onnx' instead of 'handler.py'"),
        (_change(MANIFEST, "handler", "/tmp/evil.py"), "instead of 'handler.py'"),
        (_change(MANIFEST, "handler", "text_classifier"), "instead of 'handler.py'"),
        (_change(MANIFEST, "configFile", "tokenizer.json"), "instead of 'model-config.yaml'"),
        (_change(MANIFEST, "serializedFile", "model.onnx"), "has 'serializedFile'"),
        (_change(MANIFEST, "requirementsFile", "vocab.txt"), "has 'requirementsFile'"),
        (_change(MANIFEST, "runtime", "LSP"), "names 'LSP' instead of 'python'"),
        (_change(MANIFEST, "x", 1), "its manifest has 'x'"),
        (_change(CONFIG, "useVenv", True), "has 'useVenv'"),
        (_change(CONFIG, "parallelType", "custom"), "has 'parallelType'"),
        (_change(CONFIG, "minWorkers", "1; touch planted"), "has 'minWorkers'"),
        (
            _change(CONFIG, "newsbert", {"model": "M", "runtime": "onnxruntime", "review_threshold": "0"}),
            "'review_threshold'",
        ),
        (
            _change(CONFIG, "newsbert", {"model": "M", "runtime": "onnxruntime", "review_threshold": 2}),
            "'review_threshold'",
        ),
        (lambda files: files.update({MANIFEST: b"[]"}), "is not served"),
        (lambda files: files.update({MANIFEST: b"{" * 100_000}), "is not served"),
        (lambda files: files.update({MANIFEST: b" " * 2**20 + b"{}"}), "is too large"),
    ],
)
def test_other_archives_are_refused(
    files: Files, tmp_path: Path, change: Callable[[Files], object], message: str
) -> None:
    change(files)
    with pytest.raises(ModelError) as caught:
        archive_check.check(_write(tmp_path / "evil.mar", files))
    assert message in caught.value.message


def test_links_are_refused(files: Files, tmp_path: Path) -> None:
    evil = tmp_path / "evil.mar"
    with zipfile.ZipFile(evil, "w") as content:
        for name, held in files.items():
            entry = zipfile.ZipInfo(name)
            if name == "tokenizer.json":
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            content.writestr(entry, b"/etc/passwd" if name == "tokenizer.json" else held)
    with pytest.raises(ModelError, match=r"its 'tokenizer.json' is not a plain file"):
        archive_check.check(evil)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_name_is_refused(files: Files, tmp_path: Path) -> None:
    evil = _write(tmp_path / "evil.mar", files)
    with zipfile.ZipFile(evil, "a") as content:
        content.writestr("handler.py", files["handler.py"])
    with pytest.raises(ModelError, match=r"it holds 'handler.py' 2 times"):
        archive_check.check(evil)


def test_a_zip_bomb_is_refused(files: Files, tmp_path: Path) -> None:
    files["tokenizer.json"] = b"a" * 50_000_000
    with pytest.raises(ModelError, match="is not as newsbert writes it"):
        archive_check.check(_write(tmp_path / "evil.mar", files, zipfile.ZIP_DEFLATED))


def test_entries_outside_the_central_directory_are_refused(files: Files, tmp_path: Path) -> None:
    """TorchServe reads an archive from its front; Python reads the directory at its end, which names none of these."""
    good = _write(tmp_path / "good.mar", files).read_bytes()
    hidden = _write(tmp_path / "hidden.zip", {"../planted.py": b"evil"}).read_bytes()
    entry = hidden[: hidden.index(b"PK\1\2")]
    evil = tmp_path / "evil.mar"
    evil.write_bytes(entry + good)  # which zip readers take for a program in front of an archive
    with pytest.raises(ModelError, match="is not as newsbert writes it"):
        archive_check.check(evil)

    start = good.index(b"PK\1\2")
    end = bytearray(good[start:])
    place = end.rindex(b"PK\5\6") + 16
    end[place : place + 4] = struct.pack("<I", start + len(entry))
    evil.write_bytes(good[:start] + entry + end)
    with pytest.raises(ModelError, match="it holds more than its directory says"):
        archive_check.check(evil)

    files["tokenizer.json"] = b"a" * 10 + entry
    inner = bytearray(_write(tmp_path / "inner.mar", files).read_bytes())
    with zipfile.ZipFile(tmp_path / "inner.mar") as content:
        header = content.getinfo("tokenizer.json").header_offset
    inner[header + 18 : header + 26] = struct.pack("<II", 10, 10)
    evil.write_bytes(inner)
    with pytest.raises(ModelError, match="is not as newsbert writes it"):
        archive_check.check(evil)


def test_a_refused_archive_leaves_no_files(files: Files, tmp_path: Path, cli: Cli) -> None:
    files["../../planted.py"] = b"evil"
    done = cli("serve", "locally", _write(tmp_path / "evil.mar", files), "--port", "0", "--run-dir", tmp_path / "run")
    assert done.returncode == 1
    assert "Error:" in done.stderr
    assert "it holds '../../planted.py'" in done.stderr
    assert "Hint: serve the model itself" in done.stderr
    assert not list(tmp_path.rglob("planted.py"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("minWorkers", 10**6), ("batchSize", 0), ("batchSize", 10**9), ("maxBatchDelay", -1), ("jobQueueSize", 2**31),
     ("responseTimeout", 0), ("startupTimeout", 10**9), ("minWorkers", 2)],
)  # fmt: skip
def test_attack_a_number_out_of_range_is_refused(files: Files, tmp_path: Path, name: str, value: int) -> None:
    _change(CONFIG, name, value)(files)
    with pytest.raises(ModelError, match=r"not from|that differ"):
        archive_check.check(_write(tmp_path / "evil.mar", files))


def test_attack_replacing_the_file_after_the_check_has_no_effect(files: Files, tmp_path: Path) -> None:
    original = _write(tmp_path / "a,b=evil.mar", files)
    expected = original.read_bytes()
    copy = tmp_path / archive.ARCHIVE_NAME
    archive_check.take(original, copy)
    original.write_bytes(b"swapped")
    assert copy.read_bytes() == expected
