"""MLflow: runs, the model registry, artifacts, the flavor of our models, and a tracking server for a team."""
