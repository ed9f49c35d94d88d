"""`newsbert serve`: the group of its commands."""

import typer

from newsbert.cli._framework import Commands
from newsbert.cli._output import Output
from newsbert.cli.serve import container, locally, status, stop, token

app = Commands(help="Serve a model over HTTP.", invoke_without_command=True)


@app.callback()
def _serve(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        Output().help(context)


app.command("locally", epilog=locally.EXAMPLES)(locally.locally)
app.command("container", epilog=container.EXAMPLES)(container.container)
app.command("token", epilog=token.EXAMPLES)(token.token)
app.command("status", epilog=status.EXAMPLES)(status.status)
app.command("stop", epilog=stop.EXAMPLES)(stop.stop)
