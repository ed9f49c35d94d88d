"""`newsbert export`: the group of its commands."""

from newsbert.cli._framework import group
from newsbert.cli.export import archive, assets, kserve, kubernetes, model_repository

app = group("Write files that other systems read.")
app.command("archive", epilog=archive.EXAMPLES)(archive.archive)
app.command("model-repository", epilog=model_repository.EXAMPLES)(model_repository.model_repository)
app.command("kubernetes", epilog=kubernetes.EXAMPLES)(kubernetes.kubernetes)
app.command("kserve", epilog=kserve.EXAMPLES)(kserve.kserve)
app.command("dashboard", epilog=assets.DASHBOARD_EXAMPLES)(assets.dashboard)
app.command("openapi", epilog=assets.OPENAPI_EXAMPLES)(assets.openapi)
