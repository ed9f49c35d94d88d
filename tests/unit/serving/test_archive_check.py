"""Archives that could do more than answer: newsbert refuses them, or serves only the files that it has checked."""

import io
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
def good_bytes(bundle: Bundle, tmp_path: Path) -> bytes:
    return archive.write(bundle, tmp_path / "good", "TinyModel/1", ServeSettings(runtime="onnxruntime")).read_bytes()


@pytest.fixture
def files(good_bytes: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(good_bytes)) as content:
        return {name: content.read(name) for name in content.namelist()}


def _write(file: Path, files: Files, skip: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as content:
        for name, held in files.items():
            if name != skip:
                content.writestr(name, held)
    return file


def _find_header(content: bytes, name: str) -> int:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        return opened.getinfo(name).header_offset


def _changed_bytes(content: bytes, place: int, form: str, *values: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, place, *values)
    return bytes(changed)


def _change(name: str, key: str, value: object) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        document = json.loads(files[name])
        (document["model"] if name == MANIFEST and key not in {"runtime", "x"} else document)[key] = value
        files[name] = json.dumps(document).encode()

    return change


def _add(name: str, content: bytes = b"import os; os.system('touch planted')") -> Callable[[Files], None]:
    return lambda files: files.update({name: content})


def test_an_archive_of_newsbert_is_served_as_it_is(good: Path, tmp_path: Path) -> None:
    archive_check.take(good, tmp_path / "copy.mar")
    assert (tmp_path / "copy.mar").read_bytes() == good.read_bytes()


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
        (_add("empty/", b""), "its 'empty/' is not a plain file"),
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
        (_change(CONFIG, "newsbert", []), "'newsbert' is [], not an object"),
        (
            _change(CONFIG, "newsbert", {"model": ["M"], "runtime": "onnxruntime", "workers": 1}),
            "has 'model'",
        ),
        (lambda files: files.update({CONFIG: b"[]"}), "its model-config.yaml is [], not an object"),
        (lambda files: files.update({MANIFEST: b"[]"}), "its MAR-INF/MANIFEST.json is [], not an object"),
        (lambda files: files.update({MANIFEST: b"{" * 100_000}), "is not served"),
        (lambda files: files.update({MANIFEST: b" " * 2**20 + b"{}"}), "is too large"),
    ],
)
def test_other_archives_are_refused(
    files: Files, tmp_path: Path, change: Callable[[Files], object], message: str
) -> None:
    change(files)
    with pytest.raises(ModelError) as caught:
        archive_check.take(_write(tmp_path / "evil.mar", files), tmp_path / "copy.mar")
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
        archive_check.take(evil, tmp_path / "copy.mar")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["handler.py", "model.onnx", CONFIG])
def test_a_duplicate_name_is_refused(files: Files, tmp_path: Path, name: str) -> None:
    evil = _write(tmp_path / "evil.mar", files)
    with zipfile.ZipFile(evil, "a") as content:
        content.writestr(name, files[name])
    with pytest.raises(ModelError, match=rf"it holds '{name}' 2 times"):
        archive_check.take(evil, tmp_path / "copy.mar")


@pytest.mark.parametrize("name", ["tokenizer.json", CONFIG])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_refused(files: Files, tmp_path: Path, name: str, compression: int) -> None:
    files[name] = b" " * 5_000_000 + files[name]
    evil = tmp_path / "evil.mar"
    with zipfile.ZipFile(evil, "w") as content:
        for other_name, held in files.items():
            content.writestr(other_name, held, compression if other_name == name else zipfile.ZIP_STORED)
    with pytest.raises(ModelError, match=f"its '{name}' is compressed"):
        archive_check.take(evil, tmp_path / "copy.mar")
    assert not (tmp_path / "copy.mar").exists()


def test_only_what_python_reads_and_newsbert_checks_is_served(files: Files, good_bytes: bytes, tmp_path: Path) -> None:
    """TorchServe reads an archive from its front; Python reads the directory at its end, which names none of these."""
    good = _write(tmp_path / "good.mar", files).read_bytes()
    hidden = _write(tmp_path / "hidden.zip", {"../planted.py": b"evil"}).read_bytes()
    entry = hidden[: hidden.index(b"PK\1\2")]
    start = good.index(b"PK\1\2")
    shifted = _changed_bytes(good[start:], good.rindex(b"PK\5\6") - start + 16, "<I", start + len(entry))
    nul = _write(tmp_path / "nul.mar", {**files, "handler.py?../planted.py": files["handler.py"]}, skip="handler.py")
    for name, content in {
        "in front": entry + good,  # zip readers take it for a program in front of an archive
        "before the directory": good[:start] + entry + shifted,
        "in the comment": good[:-2] + struct.pack("<H", len(entry)) + entry,
        "after the end": good + b"\0" * 10,
        "in a name, after a NUL": nul.read_bytes().replace(b"handler.py?", b"handler.py\0"),
        "sizes in the local header": _changed_bytes(good, _find_header(good, "tokenizer.json") + 18, "<II", 10, 10),
        "method in the local header": _changed_bytes(good, _find_header(good, "tokenizer.json") + 8, "<H", 8),
    }.items():
        evil, copy = tmp_path / "evil.mar", tmp_path / f"{name}.mar"
        evil.write_bytes(content)
        archive_check.take(evil, copy)
        assert copy.read_bytes() == good_bytes, name


def test_an_entry_inside_another_is_its_data(files: Files, tmp_path: Path) -> None:
    hidden = _write(tmp_path / "hidden.zip", {"../planted.py": b"evil"}).read_bytes()
    files["tokenizer.json"] = b"a" * 10 + hidden[: hidden.index(b"PK\1\2")]
    content = _write(tmp_path / "evil.mar", files).read_bytes()
    archive_check.take(tmp_path / "evil.mar", tmp_path / "expected.mar")
    # A reader from the front stops after 10 bytes, and takes the next ones for another entry.
    content = _changed_bytes(content, _find_header(content, "tokenizer.json") + 18, "<II", 10, 10)
    (tmp_path / "evil.mar").write_bytes(content)
    archive_check.take(tmp_path / "evil.mar", tmp_path / "copy.mar")
    assert (tmp_path / "copy.mar").read_bytes() == (tmp_path / "expected.mar").read_bytes()
    with zipfile.ZipFile(tmp_path / "copy.mar") as copy:
        assert copy.read("tokenizer.json") == files["tokenizer.json"]


@pytest.mark.parametrize(
    ("offset", "form", "values", "message"),
    [
        (20, "<II", (2**31, 2**31), "its files are larger than the archive"),
        (20, "<II", (10, 10), "Bad CRC-32"),
        (16, "<I", (1,), "Bad CRC-32"),
        (8, "<H", (1,), "encrypted"),
        (42, "<I", (0,), "differ"),  # the first entry's place
        (42, "<I", (2**31,), "is not served"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(
    files: Files, tmp_path: Path, offset: int, form: str, values: tuple[int, ...], message: str
) -> None:
    content = _write(tmp_path / "evil.mar", files).read_bytes()
    place = content.index(b"tokenizer.json", content.index(b"PK\1\2")) - 46
    (tmp_path / "evil.mar").write_bytes(_changed_bytes(content, place + offset, form, *values))
    with pytest.raises(ModelError, match=message):
        archive_check.take(tmp_path / "evil.mar", tmp_path / "copy.mar")
    assert not (tmp_path / "copy.mar").exists()


def test_every_changed_byte_of_a_header_is_refused_or_has_no_effect(good_bytes: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(good_bytes)) as content:
        starts = [entry.header_offset for entry in content.infolist()]
        places = [start + offset for start in starts for offset in range(45)]
        places += range(content.start_dir, len(good_bytes))
    evil, copy = tmp_path / "evil.mar", tmp_path / "copy.mar"
    refused = 0
    for place in places:
        evil.write_bytes(_changed_bytes(good_bytes, place, "<B", good_bytes[place] ^ (place % 255 + 1)))
        try:
            archive_check.take(evil, copy)
        except ModelError:
            refused += 1
            assert not copy.exists()
        else:
            assert copy.read_bytes() == good_bytes
            copy.unlink()
    assert 0 < refused < len(places)


def test_settings_are_written_anew(files: Files, good_bytes: bytes, tmp_path: Path) -> None:
    """TorchServe reads the settings as YAML, which can differ from the JSON that was checked."""
    for name in (CONFIG, MANIFEST):
        files[name] = b"\t" + json.dumps(json.loads(files[name])).replace("n", "\\u006e").encode()
    archive_check.take(_write(tmp_path / "evil.mar", files), tmp_path / "copy.mar")
    assert (tmp_path / "copy.mar").read_bytes() == good_bytes


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
        archive_check.take(_write(tmp_path / "evil.mar", files), tmp_path / "copy.mar")


def test_attack_replacing_the_file_after_the_check_has_no_effect(good: Path, tmp_path: Path) -> None:
    original = good.rename(tmp_path / "a,b=evil.mar")
    expected = original.read_bytes()
    copy = tmp_path / archive.ARCHIVE_NAME
    archive_check.take(original, copy)
    original.write_bytes(b"swapped")
    assert copy.read_bytes() == expected
