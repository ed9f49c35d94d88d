"""MLflow's tracking server for a team: its process, database, artifact store, accounts and backups."""
