"""Start a server by its production command and compare its answers to the golden texts with the model's.

Run as `python -m newsbert.images.programs.verify COMMAND…`.

This is the last step of the serving image's build: a server that does not give the model's own answers does not become
an image. With `--answers URL`, the program prints the answers of a running server as JSON; the caller compares them.
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
    """Run a server, compare its answers with the contract's, stop it, and return a summary.

    Args:
        command: A command `newsbert serve locally ARCHIVE.mar …`.

    Raises:
        UsageError: If the command names no model archive.
        ModelError: If a label differs, or a probability by more than the contract's tolerance.
        ServingError: If the server does not answer or stop.
    """
    model_archive = next((Path(word) for word in command if word.endswith(".mar")), None)
    if model_archive is None:
        raise UsageError(f"{' '.join(command)!r} names no model archive", "newsbert serve locally ARCHIVE.mar")
    contract, runtime = _read_contract(model_archive)
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert process.stdout is not None
        ready = _read_document(process.stdout)
        if "url" not in ready:
            reason = (ready.get("error") or {}).get("message", "it ended")
            raise ServingError(f"the server did not start: {reason}", "see what it printed above")
        summary = verification.verify(Client(ready["url"]), contract, runtime, None)
    finally:
        code = _stop(process)
    if code != 0:
        raise ServingError(f"the server ended with exit code {code}", "see what it printed above")
    return summary


def _read_document(stream: IO[str]) -> dict[str, Any]:
    """Return the first JSON document of a stream, or an empty one if there is none."""
    text = ""
    for line in stream:
        text += line
        with contextlib.suppress(ValueError):
            document: dict[str, Any] = json.loads(text)
            return document
    return {}


def _read_contract(model_archive: Path) -> tuple[Contract, str]:
    """Return the contract in an archive, and the runtime that serves the model."""
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
    """Verify the server that the arguments name; exit with the error's exit code if that fails."""
    parser = argparse.ArgumentParser(
        prog="newsbert.images.programs.verify", description="Prove that a server gives the model's answers."
    )
    parser.add_argument("--answers", metavar="URL", help="A server that runs already; then an ARCHIVE.mar.")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.answers and len(arguments.command) != 1:
        parser.error("--answers URL takes one ARCHIVE.mar")
    try:
        if arguments.answers:
            contract, _ = _read_contract(Path(arguments.command[0]))
            print(json.dumps(verification.collect(Client(arguments.answers), contract)))
        else:
            print(f"verified: {verify(arguments.command)}")
    except NewsbertError as error:
        print(f"ERROR: not verified: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
