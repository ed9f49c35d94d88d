"""Start a server as it will be started, and have it answer the golden texts.

Run as `python -m newsbert.images.programs.verify COMMAND…`.

The last step of the serving image's build: what does not give the model's own answers does not become an image. With
`--answers URL`, print as JSON how a server that runs already answers them: who deploys it compares.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from newsbert.bundle.contract import CONTRACT_FILE, Contract
from newsbert.errors import NewsbertError, ServingError, UsageError
from newsbert.serving import archive, verification
from newsbert.serving.client import Client

STOP_TIMEOUT_S = 60


def verify(command: Sequence[str]) -> str:
    """Run a server, compare its answers with the contract's, stop it, and return what was proved.

    Args:
        command: A `newsbert serve locally ARCHIVE.mar …`.

    Raises:
        UsageError: If the command names no model archive.
        ModelError: If a label differs, or a probability by more than the contract's tolerance.
        ServingError: If the server does not answer or stop.
    """
    model_archive = next((Path(word) for word in command if word.endswith(".mar")), None)
    if model_archive is None:
        raise UsageError(f"{' '.join(command)!r} names no model archive", "newsbert serve locally ARCHIVE.mar")
    contract, runtime = _promise(model_archive)
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert process.stdout is not None
        ready = _document(process.stdout)
        if "url" not in ready:
            reason = (ready.get("error") or {}).get("message", "it ended")
            raise ServingError(f"the server did not start: {reason}", "see what it printed above")
        said = verification.verify(Client(ready["url"]), contract, runtime, None)
    finally:
        code = _stop(process)
    if code != 0:
        raise ServingError(f"the server ended with exit code {code}", "see what it printed above")
    return said


def _document(stream: IO[str]) -> dict[str, Any]:
    """The first JSON document of a stream; an empty one if there is none."""
    text = ""
    for line in stream:
        text += line
        with contextlib.suppress(ValueError):
            document: dict[str, Any] = json.loads(text)
            return document
    return {}


def _promise(model_archive: Path) -> tuple[Contract, str]:
    """The contract in an archive, and the runtime that is to keep it."""
    runtime = archive.served(model_archive).runtime
    with zipfile.ZipFile(model_archive) as content:
        contract = Contract.from_json(content.read(CONTRACT_FILE).decode("utf-8"))
    return contract, runtime


def _stop(process: "subprocess.Popen[str]") -> int:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def main() -> None:
    """Prove the command given as arguments; exit 1 if that fails."""
    parser = argparse.ArgumentParser(
        prog="newsbert.images.programs.verify", description="Prove that a server gives the model's answers."
    )
    parser.add_argument("--answers", metavar="URL", help="A server that runs already; then an ARCHIVE.mar.")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.answers and len(given.command) != 1:
        parser.error("--answers URL takes one ARCHIVE.mar")
    try:
        if given.answers:
            contract, _ = _promise(Path(given.command[0]))
            print(json.dumps(verification.collect(Client(given.answers), contract)))
        else:
            print(f"proved: {verify(given.command)}")
    except NewsbertError as error:
        print(f"ERROR: not proved: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
