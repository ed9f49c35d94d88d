"""A bundle's requirements.txt is foreign text: names that newsbert ships, and versions, or nothing."""

import os
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from newsbert.bundle import pins
from newsbert.bundle.bundle import Bundle, seal
from newsbert.bundle.requirements import MAX_SIZE_BYTES, differences, parse, read
from newsbert.core.settings import ImageSettings
from newsbert.errors import ModelError
from newsbert.images import build
from tests.support.cli import Cli

PINS = pins.pins()

HOSTILE = {
    "url": "numpy @ http://127.0.0.1:9/numpy-2.4.6-py3-none-any.whl",
    "vcs": "git+https://evil.example/numpy.git#egg=numpy",
    "path": "./numpy",
    "index": "-i http://127.0.0.1:9/simple",
    "index after a pin": "numpy==2.4.6 -i http://127.0.0.1:9/simple",
    "a second index": "--extra-index-url http://127.0.0.1:9/simple",
    "find links": "--find-links=http://127.0.0.1:9/",
    "another file": "-r /etc/passwd",
    "constraints": "-c /etc/passwd",
    "editable": "-e .",
    "option in a pin": "numpy==2.4.6 --global-option=x",
    "code": "pip==1; import os",
    "marker": "numpy==2.4.6 ; python_version > '3'",
    "extra": "typer[all]==0.29.2",
    "continuation": "numpy==2.4.6 \\",
    "continued": "numpy==\\\n2.4.6",
    "unknown": "evil==1.0",
    "unknown beside a known": "numpy-evil==1.0",
    "wildcard": "numpy==2.*",
    "arbitrary": "numpy===2.4.6",
    "range": "numpy>=2",
    "two": "numpy==2.4.6,!=2.0",
    "no version": "numpy",
    "empty version": "numpy==",
    "local version": "numpy==2.4.6+evil",
    "twice": "numpy==2.4.6\nNumPy==2.0.1",
    "twice by another spelling": "typing_extensions==4.16.0\ntyping-extensions==4.16.0",
    "variable": "numpy==${VERSION}",
    "blank": " numpy==2.4.6",
    "blank after": "numpy==2.4.6 ",
    "carriage return": "numpy==2.4.6\r-i http://127.0.0.1:9/simple",
    "vertical tab": "numpy==2.4.6\x0b-i http://127.0.0.1:9/simple",
    "form feed": "numpy==2.4.6\x0c-r /etc/passwd",
    "line separator": "numpy==2.4.6\u2028-i http://127.0.0.1:9/simple",
    "next line": "numpy==2.4.6\x85-r /etc/passwd",
    "full width": "numpy==２.4.6",
    "letters like ours": "ｎumpy==2.4.6",
    "zero width": "num\u200bpy==2.4.6",
    "right to left": "numpy==2.4.6\u202e",
    "byte order mark": "\ufeffnumpy==2.4.6",
    "nul": "numpy==2.4.6\0",
    "escape": "numpy==2.4.6\x1b[2J",
    "shell": "numpy==2.4.6$(touch /tmp/x)",
    "dockerfile": "numpy==2.4.6'\nRUN touch /x",
}


@pytest.fixture
def hostile(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of a bundle to write hostile text into."""
    return Path(shutil.copytree(bundle.path, tmp_path / "hostile"))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_attack_a_line_that_is_no_pin_is_named_and_builds_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(f"onnxruntime==1.32.0\n{text}\n".encode())
    with pytest.raises(ModelError, match=r"requirements\.txt: line [23], ") as caught:
        read(tmp_path, PINS)
    assert caught.value.message.isprintable() and caught.value.message.isascii()


@pytest.mark.parametrize("name", ["url", "a second index", "continuation", "nul"])
@pytest.mark.parametrize("flags", [(), ("--bundle-versions",)])
def test_attack_build_image_refuses_a_hostile_bundle(
    hostile: Path, cli: Cli, name: str, flags: tuple[str, ...]
) -> None:
    (hostile / "requirements.txt").write_bytes(HOSTILE[name].encode())
    result = cli("build-image", hostile, "--dry-run", "--runtime", "onnxruntime", *flags)
    assert result.returncode == 1
    assert "requirements.txt: line 1, " in result.stderr
    assert "Traceback" not in result.stderr
    assert "127.0.0.1:9" not in result.stdout


def test_attack_a_huge_or_special_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    with pytest.raises(ModelError, match=r"has no requirements\.txt"):
        read(tmp_path, PINS)
    file.write_bytes(b"#" * 10_000_000)
    with pytest.raises(ModelError, match=f"more than {MAX_SIZE_BYTES} bytes"):
        read(tmp_path, PINS)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ModelError, match=r"has no requirements\.txt"):
        read(tmp_path, PINS)


_LINES = st.one_of(
    st.sampled_from([*HOSTILE.values(), *(f"{name}=={version}" for name, version in list(PINS.items())[:40])]),
    st.builds(
        "{}{}{}".format, st.sampled_from(list(PINS)), st.sampled_from(["==", "===", " == ", "@", ">="]), st.text()
    ),
    st.text(),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_LINES, max_size=6).map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"numpy==2.4.6\nonnxruntime==1.32.0\n")
def test_only_known_names_and_versions_are_returned(content: bytes) -> None:
    try:
        versions = parse(content, PINS)
    except ValueError as error:
        assert str(error).startswith("line ")
        return
    assert set(versions) <= set(PINS)
    for version in versions.values():
        assert str(Version(version)) == version and Version(version).local is None
    lines = [line for line in content.decode("utf-8").split("\n") if line and not line.startswith("#")]
    assert len(lines) == len(versions)


def test_requirements_that_training_writes_are_read() -> None:
    text = "\n".join(["# of training", "", *pins.for_bundle()])
    versions = parse(text.encode(), PINS)
    assert {"numpy", "onnxruntime", "torchserve"} <= set(versions)
    assert {difference.name for difference in differences({**versions, "numpy": "2.0.1"}, PINS)} >= {"numpy"}
    assert differences({"numpy": PINS["numpy"] + ".0"}, PINS) == ()


@pytest.mark.parametrize("own", [False, True])
def test_versions_of_the_bundle_are_named_and_used_on_request(hostile: Path, own: bool) -> None:
    contract = Bundle.read(hostile).contract
    (hostile / "requirements.txt").write_text("numpy==2.0.1\nonnxruntime==1.32.0\nhuggingface_hub==1.0\n")
    # Digests that live beside what they protect prove nothing: who alters a file can write them anew.
    seal(hostile, {field.name: getattr(contract, field.name) for field in fields(contract) if field.name != "files"})
    settings = ImageSettings(runtime="onnxruntime", bundle_versions=own)
    with build.contexts(str(hostile), "serving", settings) as plan:
        base, trainer, _ = plan.contexts
        requirements_of_trainer = trainer.files["requirements.txt"]
        content = base.files.get("bundle.txt")
    assert isinstance(requirements_of_trainer, bytes) and b"2.0.1" not in requirements_of_trainer
    assert content == (b"numpy==2.0.1\n" if own else None)
    assert all(part in plan.notes[0] for part in ("numpy", "2.0.1", PINS["numpy"]))
    assert ("--bundle-versions" in plan.notes[-1]) is not own
    assert not [note for note in plan.notes if "huggingface" in note]


@pytest.mark.parametrize("flag", ["--root-image", "--repository"])
def test_attack_a_name_with_a_line_break_is_a_usage_error(cli: Cli, flag: str) -> None:
    result = cli("build-image", "--base", "--dry-run", flag, "python:3.11\nRUN touch /tmp/x")
    assert result.returncode == 2
    assert "RUN" not in result.stdout
