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
    """Look whether this machine, and what newsbert reaches from it, can do what newsbert does.

    TorchServe is started and stopped, and the tracking server is given a run and a file, which are deleted. Exit code 1
    if training or serving here cannot go on.
    """
    screen = Output(as_json)
    from newsbert.api.doctor import checks
    from newsbert.api.doctor import examination as doctor

    with screen.progress() as progress:
        progress.phase("looking")
        found = list(doctor.run_checks(doctor.checks()))
    failed = any(each.state == checks.FAILED for each in found)
    if screen.as_json:
        screen.document({"ok": not failed, "checks": [dataclasses.asdict(each) for each in found]})
    else:
        rows = [(each.state, each.check, each.found + (f"\n→ {each.mend}" if each.mend else "")) for each in found]
        screen.table(("", "check", "found"), rows, words=3)
    if failed:
        raise typer.Exit(1)
