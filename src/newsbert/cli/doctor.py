"""`newsbert doctor`."""

import dataclasses

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output

EXAMPLES = """
Examples:

    newsbert doctor

    newsbert doctor --json
"""


def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Check this machine and the services that newsbert uses.

    It starts and stops TorchServe, and it writes a run and a file to the tracking server, which it deletes. Exit code 1
    if training or serving here cannot go on.
    """
    screen = Output(as_json)
    from newsbert.api.doctor import checks
    from newsbert.api.doctor import examination as doctor

    with screen.progress() as progress:
        progress.phase("looking")
        results = list(doctor.run_checks(doctor.checks()))
    failed = any(result.state == checks.FAILED for result in results)
    if screen.as_json:
        screen.document({"ok": not failed, "checks": [dataclasses.asdict(result) for result in results]})
    else:
        rows = [
            (result.state, result.check, result.result + (f"\n→ {result.fix}" if result.fix else ""))
            for result in results
        ]
        screen.table(("", "check", "result"), rows, words=3)
    if failed:
        raise typer.Exit(1)
