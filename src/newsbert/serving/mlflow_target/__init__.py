"""The target `newsbert` of `mlflow deployments`."""
