"""Options of several commands of `newsbert tracking`."""

from typing import TYPE_CHECKING, Annotated

from newsbert.cli._options import setting
from newsbert.core import config
from newsbert.core.settings import TrackingServerSettings

if TYPE_CHECKING:
    from newsbert.tracking.server.state import ServerState

Directory = Annotated[str | None, setting(TrackingServerSettings, "directory", metavar="DIRECTORY")]
BackendStore = Annotated[str | None, setting(TrackingServerSettings, "backend_store", metavar="URL")]
Artifacts = Annotated[str | None, setting(TrackingServerSettings, "artifacts", metavar="WHERE")]


def get_state(directory: str | None) -> "ServerState":
    """Return the state of the server in a directory, or in the configured one."""
    from newsbert.tracking.server.state import ServerState

    return ServerState(config.resolve(TrackingServerSettings, directory=directory).directory)
