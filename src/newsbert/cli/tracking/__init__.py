"""`newsbert tracking`: an MLflow tracking server for a team."""
