"""Archives and directories with odd names, and an archive that is swapped after it was checked."""

import shutil
import tempfile
import threading
from pathlib import Path

import pytest

import newsbert
from newsbert import archive, torchserve
from newsbert.bundle import Bundle
from newsbert.settings import ServeSettings


def test_attack_another_archive_is_served_or_a_port_opened(
    trained: tuple[newsbert.TrainResult, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xbogus")
    settings = ServeSettings(port=0)
    store = tmp_path / "jürgen\nload_models=x"
    made = archive.write(Bundle.read(trained[0].bundle), store, "TinyModel/1", settings).rename(
        store / "a,b=evil.mar.mar"
    )
    base = Path(tempfile.mkdtemp())
    work = base / "jü $x %d'\nadded=1"  # short: a socket's path is limited
    work.mkdir(mode=0o700)
    try:
        with torchserve.serving(made, settings, work, print) as server:
            made.write_bytes(b"swapped")
            assert server.wait_ready(60, threading.Event())
    finally:
        shutil.rmtree(base)
