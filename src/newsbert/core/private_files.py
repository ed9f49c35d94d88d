"""Files and directories in places where other users of the machine write, too.

Another user may have created a predictable name before: as a link to a file of this user, or as a directory with work
that this user would resume.
"""

import errno
import os
import stat
from pathlib import Path
from typing import TextIO


def make_directory(directory: Path) -> None:
    """Make a directory for this user alone, or reuse one that this user owns.

    Raises:
        OSError: If it cannot be made, or `check_owner` rejects it.
    """
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        check_owner(directory)
        directory.chmod(0o700)


def check_owner(directory: Path) -> None:
    """Reject a path that is not a directory, or is another user's.

    Raises:
        OSError: If the path is rejected or does not exist.
    """
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is no directory", str(directory))
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it is another user's", str(directory))


def open_lock(file: Path) -> TextIO:
    """Open a file for locking, and create it if necessary; never follow a link.

    Raises:
        OSError: If it cannot be opened, or is a link.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "a", encoding="utf-8")
