"""`newsbert tracking backup` and `restore`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output
from newsbert.cli.tracking._options import Artifacts, BackendStore, Directory
from newsbert.core import config
from newsbert.core.settings import TrackingServerSettings
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.tracking.server.backup_file import BackupManifest

BACKUP_EXAMPLES = """
Examples:

    newsbert tracking backup tracking-2026-11-25.tar

    newsbert tracking backup tracking.tar --backend-store postgresql://mlflow@db/mlflow --artifacts s3://my-bucket/mlflow
"""
RESTORE_EXAMPLES = """
Examples:

    newsbert tracking restore tracking-2026-11-25.tar --directory restored

    newsbert tracking restore tracking.tar --backend-store postgresql://mlflow@db/empty --artifacts s3://my-bucket/empty
"""


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; a tar that is made here.")],
    backend_store: BackendStore = None,
    artifacts: Artifacts = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write database, accounts and artifacts into one file.

    The server may run meanwhile.
    """
    screen = Output(as_json)
    settings = config.resolve(
        TrackingServerSettings, backend_store=backend_store, artifacts=artifacts, directory=directory
    )
    from newsbert.tracking.server import backup, process

    state, store_config = process.places(settings)
    if state.read_previous_store() is None:
        if settings.backend_store is None:
            raise state.never_started()
        if settings.artifacts is None:
            raise UsageError("nothing says where the artifacts are", "give --artifacts, too")
    manifest = backup.make(store_config, file)
    _render_backup(screen, manifest, file, "holds")
    screen.next_command(f"newsbert tracking restore {shlex.quote(str(file))} --directory EMPTY")


def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    backend_store: BackendStore = None,
    artifacts: Artifacts = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore a backup into an empty database and artifact store."""
    screen = Output(as_json)
    settings = config.resolve(
        TrackingServerSettings, backend_store=backend_store, artifacts=artifacts, directory=directory
    )
    from newsbert.tracking.server import backup, process

    state, store_config = process.places(settings)
    manifest = backup.restore(state, store_config, file, screen.log)
    _render_backup(screen, manifest, file, "was restored:")
    screen.next_command(f"newsbert tracking up{state.option}")


def _render_backup(screen: Output, contents: "BackupManifest", file: Path, what: str) -> None:
    if screen.as_json:
        fields = {name: value for name, value in vars(contents).items() if name != "files"}
        screen.document({"file": str(file), **fields, "artifacts": len(contents.artifacts)})
        return
    summary = f"a {contents.database} database of MLflow {contents.mlflow} and {len(contents.artifacts)} artifacts"
    screen.result(f"{file} {what} {summary}")
