"""Logs of servers: bounded, and what is written after they were cut is in them."""

import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.core import bounded_log
from newsbert.core.waiting import poll

WRITE = """
import select, sys

while not select.select([sys.stdin], [], [], 0)[0]:
    print("x" * 100, flush=True)
print("the end")
"""


def test_a_log_that_another_process_writes_to_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newsbert.core.bounded_log.MAX_BYTES", 100_000)
    log = tmp_path / "server.log"
    with (
        log.open("a") as stream,
        subprocess.Popen([sys.executable, "-c", WRITE], stdin=subprocess.PIPE, stdout=stream) as process,
    ):
        for _ in range(20):
            assert poll(lambda: log.stat().st_size > 100_000, timeout_s=30, interval_s=0.001)
            bounded_log.trim(log)
        process.communicate(timeout=30)
    assert process.returncode == 0
    bounded_log.trim(log)
    old = log.with_name("server.log.1")
    assert sorted(tmp_path.iterdir()) == [log, old]
    # What is written while the end of the log is copied is copied, too.
    assert old.stat().st_size <= 300_000 and log.stat().st_size <= 100_000
    assert old.stat().st_mode & 0o777 == 0o600
    assert (old.read_text() + log.read_text()).endswith("\nthe end\n")


def test_attack_a_link_instead_of_the_old_log_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newsbert.core.bounded_log.MAX_BYTES", 10)
    log, other = tmp_path / "server.log", tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "server.log.1").symlink_to(other)
    log.write_text("x" * 50)
    bounded_log.trim(log)
    assert (other.read_text(), (tmp_path / "server.log.1").read_text(), log.read_text()) == ("precious", "x" * 10, "")
