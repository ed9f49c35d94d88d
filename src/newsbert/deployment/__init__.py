"""Deployment of a model to Docker hosts, Kubernetes or Cloud Run; rollback and delivery."""
