"""A PostgreSQL for tests, from Debian's package: a cluster of their own on loopback."""

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.support.calls import free_port

PASSWORD = "plan-ted%secret"
"""Of the user who owns the databases; tests look for it where it must not be."""

QUOTED = "plan-ted%25secret"


def programs() -> Path:
    """Where PostgreSQL's programs are; the test is skipped where there are none, unless they are required."""
    initdbs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if initdbs or on_path:
        return (initdbs[-1] if initdbs else Path(str(on_path))).parent
    if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
        pytest.fail("NEWSBERT_REQUIRE_ENGINE is set, and there is no PostgreSQL")
    pytest.skip("there is no PostgreSQL on this machine (Debian's package postgresql)")


class Postgres:
    """A cluster, and databases in it that the user `mlflow` owns."""

    def __init__(self) -> None:
        # Not below pytest's own directories, into which another user may not go.
        self.directory = Path(tempfile.mkdtemp(prefix="newsbert-postgres-"))
        self.port = free_port()
        self._programs = programs()
        # It refuses to run as root.
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self.directory, "postgres", "postgres")
        self._run("initdb", "-D", "data", "-U", "postgres", "--auth-host=scram-sha-256", "--auth-local=trust")
        self.start()
        self.sql(f"CREATE USER mlflow PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start it."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self.directory} -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "start")

    def stop(self) -> None:
        """Stop it, and remove its files."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(self.directory)

    def database(self) -> str:
        """The URL of a new database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name} OWNER mlflow")
        return f"postgresql://mlflow:{QUOTED}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str) -> None:
        """Do something as its superuser."""
        self._run("psql", "-h", str(self.directory), "-p", str(self.port), "-U", "postgres", "-qc", statement)

    def _run(self, program: str, *arguments: str) -> None:
        ran = subprocess.run(
            [*self._as, str(self._programs / program), *arguments],
            cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
