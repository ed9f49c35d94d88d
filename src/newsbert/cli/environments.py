"""`newsbert environments`."""

import dataclasses

from newsbert import config
from newsbert.cli.options import Debug, Json
from newsbert.cli.output import Output

EXAMPLES = """
Examples:

    newsbert environments

    newsbert environments --json
"""


def environments(as_json: Json = False, debug: Debug = False) -> None:
    """List the environments of newsbert.toml, and what answers there."""
    screen = Output(as_json)
    known = config.environments()
    from newsbert import deploying

    found = {name: deploying.environment(name, screen.log).deployed() for name in known}
    if screen.as_json:
        screen.document({"environments": {name: each and dataclasses.asdict(each) for name, each in found.items()}})
        return
    rows = [
        (name, each.model if each else "", each.url if each else "", (each.before if each else "") or "")
        for name, each in found.items()
    ]
    screen.table(("environment", "model", "url", "before"), rows, words=4)
    if not found:
        screen.note(f"there is no [environments.NAME] in {config.CONFIG_FILE}")
