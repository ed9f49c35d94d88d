"""The files by which workers and their supervisor know of one another."""

import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.serving.heartbeat import Heartbeat


def test_a_batch_is_recorded_during_and_after_its_answer(tmp_path: Path) -> None:
    activity = Heartbeat(tmp_path)
    assert not activity.busy()
    assert activity.last() == 0
    with activity.answering():
        assert activity.busy()
        assert activity.last() == 0
    assert not activity.busy()
    first = activity.last()
    assert first > 0
    with activity.answering():
        pass
    assert activity.last() > first


def test_a_failed_batch_is_not_recorded_as_answered(tmp_path: Path) -> None:
    activity = Heartbeat(tmp_path)
    with pytest.raises(ValueError, match="broken"), activity.answering():
        raise ValueError("broken")
    assert not activity.busy()
    assert activity.last() == 0


def test_a_dead_worker_is_not_busy(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from newsbert.serving.heartbeat import Heartbeat\n"
        "with Heartbeat(pathlib.Path(sys.argv[1])).answering(): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.iterdir())) == 1
    assert not Heartbeat(tmp_path).busy()


def test_another_process_reads_the_heartbeat(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from newsbert.serving.heartbeat import Heartbeat\n"
        "with Heartbeat(pathlib.Path(sys.argv[1])).answering(): print(flush=True); sys.stdin.readline()\n"
        "print(flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    supervisor = Heartbeat(tmp_path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        assert supervisor.busy()
        assert supervisor.last() == 0
        worker.stdin.write("\n")
        worker.stdin.flush()
        worker.stdout.readline()
        assert not supervisor.busy()
        assert supervisor.last() > 0
        worker.stdin.close()


def test_without_an_activity_directory_nothing_is_recorded() -> None:
    activity = Heartbeat(None)
    with activity.answering():
        assert not activity.closing
