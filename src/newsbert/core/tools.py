"""Other projects' command lines."""

import shutil
import subprocess
from collections.abc import Sequence

from newsbert.errors import ServingError


class Tool:
    """A command that is installed here, with arguments that all calls have.

    Args:
        name: Its name.
        arguments: Those arguments.
        mend: The command that tells whether it can do its part.

    Raises:
        ServingError: If it is not installed.
    """

    def __init__(self, name: str, arguments: Sequence[str], mend: str) -> None:
        found = shutil.which(name)
        if found is None:
            raise ServingError(f"{name} is not installed", f"install it, then: {mend}")
        self._name, self._command, self._mend = name, [found, *arguments], mend

    def run(self, *arguments: str, given: str | None = None) -> str:
        """Run it with arguments and a text on its standard input; return what it printed.

        Raises:
            ServingError: If it fails; the message has what it said last.
        """
        ran = subprocess.run(
            [*self._command, *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            check=False,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if ran.returncode != 0:
            said = [line.strip() for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
            reason = next((line for line in said if line.lower().startswith("error")), said[-1] if said else "")
            raise ServingError(
                f"{self._name} {' '.join(arguments[:2])} failed: {reason or f'exit code {ran.returncode}'}", self._mend
            )
        return ran.stdout
