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
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from newsbert.bundle.contract import Contract
from newsbert.errors import NewsbertError, ServingError, UsageError
from newsbert.serving import shipped_model, verification
from newsbert.serving.client import Client

STOP_TIMEOUT_S = 60


def verify(command: Sequence[str]) -> str:
    """Run a server, compare its answers with the contract's, stop it, and return a summary.

    Args:
        command: A command `newsbert serve locally MODEL …`, with the absolute path of an archive or a directory.

    Raises:
        UsageError: If the command names no path of a model.
        ModelError: If a label differs, or a probability by more than the contract's tolerance.
        ServingError: If the server does not answer or stop.
    """
    model = next((Path(word) for word in command[1:] if Path(word).is_absolute()), None)
    if model is None:
        raise UsageError(f"{' '.join(command)!r} names no model by its path", "newsbert serve locally /opt/model")
    shipped = shipped_model.read(model)
    contract = Contract.from_json(shipped.contract.decode("utf-8"))
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert process.stdout is not None
        ready = _read_document(process.stdout)
        if "url" not in ready:
            reason = (ready.get("error") or {}).get("message", "it ended")
            raise ServingError(f"the server did not start: {reason}", "see what it printed above")
        summary = verification.verify(Client(ready["url"]), contract, shipped.runtime, None)
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
    parser.add_argument("--answers", metavar="URL", help="A server that runs already; then the path of its model.")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.answers and len(arguments.command) != 1:
        parser.error("--answers URL takes one path of a model")
    try:
        if arguments.answers:
            contract = Contract.from_json(shipped_model.read(Path(arguments.command[0])).contract.decode("utf-8"))
            print(json.dumps(verification.collect(Client(arguments.answers), contract)))
        else:
            print(f"verified: {verify(arguments.command)}")
    except NewsbertError as error:
        print(f"ERROR: not verified: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
