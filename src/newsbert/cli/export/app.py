"""`newsbert export`: the group of its commands."""

import typer

from newsbert.cli._framework import Commands
from newsbert.cli._output import Output
from newsbert.cli.export import archive, assets, kubernetes

app = Commands(help="Write files that other systems read.", invoke_without_command=True)


@app.callback()
def _export(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        Output().help(context)


app.command("archive", epilog=archive.EXAMPLES)(archive.archive)
app.command("kubernetes", epilog=kubernetes.EXAMPLES)(kubernetes.kubernetes)
app.command("dashboard", epilog=assets.DASHBOARD_EXAMPLES)(assets.dashboard)
app.command("openapi", epilog=assets.OPENAPI_EXAMPLES)(assets.openapi)
