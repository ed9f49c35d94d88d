"""Runs of killed processes: they are ended by the next command, and those of living ones are not."""

import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.core.settings import TrackingSettings
from newsbert.errors import TrackingError
from newsbert.tracking import experiment, run_marks
from newsbert.tracking.client import TrackingClient

HOLD = """
import os, sys
from newsbert.tracking import run_marks
with run_marks.hold(sys.argv[1]) as mark:
    print(mark, flush=True)
    os.kill(os.getpid(), 9)
"""


def _make_mark_of_killed_process(server: str) -> str:
    done = subprocess.run([sys.executable, "-c", HOLD, server], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -9, done.stderr
    return done.stdout.strip()


def test_the_next_command_ends_the_run_of_a_killed_process(tmp_path: Path) -> None:
    settings = TrackingSettings(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = TrackingClient(settings, create=True)
    killed = experiment.create_run(tracker, {run_marks.TAG: _make_mark_of_killed_process(tracker.marks)})
    another = experiment.create_run(tracker, {})
    with experiment.start_run(tracker, system_metrics=False) as living:
        statuses = {run.info.run_id: run.info.status for run in TrackingClient(settings).runs("", 10)}
        assert statuses == {killed: "KILLED", another: "RUNNING", living.run_id: "RUNNING"}
        (file,) = (tmp_path / ".state").rglob("mark")
        run = tracker.get_run(living.run_id)
        assert run is not None and run.data.tags[run_marks.TAG] == file.read_text(encoding="utf-8")
    assert not list((tmp_path / ".state").rglob("mark"))


def test_a_mark_waits_for_its_server() -> None:
    mark = _make_mark_of_killed_process("one server")
    ended: list[str] = []

    def refuse(mark: str) -> None:
        raise TrackingError("not now")

    run_marks.end_killed("another server", ended.append)
    run_marks.end_killed("one server", refuse)
    assert ended == []
    run_marks.end_killed("one server", ended.append)
    run_marks.end_killed("one server", ended.append)
    assert ended == [mark]


@pytest.mark.parametrize("text", ["' or 1=1", "", "\udcff", "%"])
def test_attack_a_forged_mark_is_not_used_as_a_filter(tmp_path: Path, text: str) -> None:
    with run_marks.hold("server"):
        (file,) = (tmp_path / ".state").rglob("mark")
    left = file.parents[2] / ".newsbert-tmp-abcdefgh"
    (left / "files").mkdir(parents=True)
    (left / "lock").touch()
    (left / "files" / "mark").write_text(text, encoding="utf-8", errors="surrogateescape")
    ended: list[str] = []
    run_marks.end_killed("server", ended.append)
    assert (ended, left.exists()) == ([], False)
