"""What workers and their supervisor tell each other."""

import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.serving.heartbeat import Heartbeat


def test_a_batch_is_known_while_and_after_it_is_answered(tmp_path: Path) -> None:
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


def test_a_batch_that_failed_was_not_answered(tmp_path: Path) -> None:
    activity = Heartbeat(tmp_path)
    with pytest.raises(ValueError, match="broken"), activity.answering():
        raise ValueError("broken")
    assert not activity.busy()
    assert activity.last() == 0


def test_a_worker_that_died_is_not_busy(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from newsbert.serving.heartbeat import Heartbeat\n"
        "with Heartbeat(pathlib.Path(sys.argv[1])).answering(): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.iterdir())) == 1
    assert not Heartbeat(tmp_path).busy()


def test_another_process_sees_what_a_worker_tells(tmp_path: Path) -> None:
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


def test_under_somebody_elses_server_nothing_is_told() -> None:
    activity = Heartbeat(None)
    with activity.answering():
        assert not activity.closing
