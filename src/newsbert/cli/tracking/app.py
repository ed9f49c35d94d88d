"""`newsbert tracking`: the group of its commands."""

from newsbert.cli._framework import group
from newsbert.cli.tracking import accounts, backups, server

app = group("Run an MLflow tracking server for a team.")
app.command("up", epilog=server.UP_EXAMPLES)(server.up)
app.command("down", epilog=server.DOWN_EXAMPLES)(server.down)
app.command("status", epilog=server.STATUS_EXAMPLES)(server.status)
app.command("backup", epilog=backups.BACKUP_EXAMPLES)(backups.backup)
app.command("restore", epilog=backups.RESTORE_EXAMPLES)(backups.restore)
app.command("user", epilog=accounts.USER_EXAMPLES)(accounts.user)
app.command("grant", epilog=accounts.GRANT_EXAMPLES)(accounts.grant)
app.command("revoke", epilog=accounts.REVOKE_EXAMPLES)(accounts.revoke)
