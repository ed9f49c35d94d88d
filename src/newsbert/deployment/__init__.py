"""Environments: deploy a model to Docker hosts, Kubernetes or Cloud Run, roll back, deliver."""
