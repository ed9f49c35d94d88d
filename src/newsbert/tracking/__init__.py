"""MLflow: runs, the model registry, artifacts, the flavor of newsbert's models, and a tracking server for a team."""
