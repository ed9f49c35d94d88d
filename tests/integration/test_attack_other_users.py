"""What other users of the machine leave in directories that this one uses too, and whom they can reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.core import locks, private_files
from newsbert.errors import NotFoundError
from newsbert.training import run_dir
from tests.support.cli import Cli

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "goal team"}) + "\n")
    return file


@as_root
def test_attack_work_of_another_user_is_not_gone_on_with(bundle: Bundle, cli: Cli, tmp_path: Path, rows: Path) -> None:
    planted = tmp_path / ".out.csv.partial"
    planted.mkdir()
    os.chown(planted, NOBODY, NOBODY)
    done = cli("predict", "--model", bundle.path, "--file", rows, "--output", tmp_path / "out.csv")
    assert done.returncode == 1
    assert "it is another user's" in done.stderr
    assert list(planted.iterdir()) == []


def test_attack_no_link_is_followed(bundle: Bundle, cli: Cli, tmp_path: Path, rows: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / ".out.csv.partial").symlink_to(victim)
    done = cli("predict", "--model", bundle.path, "--file", rows, "--output", tmp_path / "out.csv")
    assert done.returncode == 1
    assert "it is no directory" in done.stderr
    assert list(victim.iterdir()) == []
    (tmp_path / "x.lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match=r"x\.lock"):
        private_files.open_lock(tmp_path / "x.lock")
    assert not (tmp_path / "made").exists()


@as_root
def test_attack_a_training_of_another_user_is_neither_resumed_nor_removed(tmp_path: Path) -> None:
    planted = tmp_path / ".out.partial-0123abcd"
    planted.mkdir()
    locks.acquire(planted, "0" * 32).close()
    (planted / "run.json").write_text("{}")
    assert [directory for directory, _ in locks.iterate_stale(tmp_path, ".*")] == [planted]
    os.chown(planted, NOBODY, NOBODY)
    assert list(locks.iterate_stale(tmp_path, ".*")) == []
    assert run_dir.find("0000", tmp_path) is None
    with pytest.raises(NotFoundError):
        run_dir.read(planted)


_CLUSTER = """
import os, psutil, ray, subprocess, sys
from newsbert.core import ray_cluster
from newsbert.core.settings import RaySettings

with ray_cluster.connected(RaySettings(workers=1), print):
    paths = ray.get(ray.remote(lambda: __import__("sys").path).remote())
    assert os.getcwd() not in paths, paths
    address = ray.get_runtime_context().gcs_address
    session = ray._private.worker._global_node.get_session_dir_path()
    running = psutil.process_iter(["cmdline"])  # none of one that ended
    ray_processes = [process for process in running if session in " ".join(process.info["cmdline"] or [])]
    heard = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in ray_processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert heard == {"127.0.0.1"}, heard
    os.environ["RAY_AUTH_TOKEN"] = "guessed"
    other = "import sys; from ray._raylet import GcsClient; GcsClient(sys.argv[1]).internal_kv_keys(b'', timeout=5)"
    done = subprocess.run([sys.executable, "-P", "-c", other, address], capture_output=True, text=True)
    assert done.returncode != 0, done.stdout
    print("refused", done.stderr[-300:])
"""


def test_attack_rays_cluster_obeys_its_own_user_alone(tmp_path: Path) -> None:
    (tmp_path / "msgpack.py").write_text("open('owned', 'w').write('x')")  # what Ray's workers import
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CLUSTER], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout
    assert not (tmp_path / "owned").exists()
