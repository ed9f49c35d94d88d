"""Deployment of a model to Docker hosts, Kubernetes or Cloud Run; rollback; the pipeline of all steps."""
