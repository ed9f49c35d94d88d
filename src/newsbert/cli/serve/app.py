"""`newsbert serve`: the group of its commands."""

from newsbert.cli._framework import group
from newsbert.cli.serve import container, locally, status, stop, token

app = group("Serve a model over HTTP.")
app.command("locally", epilog=locally.EXAMPLES)(locally.locally)
app.command("container", epilog=container.EXAMPLES)(container.container)
app.command("token", epilog=token.EXAMPLES)(token.token)
app.command("status", epilog=status.EXAMPLES)(status.status)
app.command("stop", epilog=stop.EXAMPLES)(stop.stop)
