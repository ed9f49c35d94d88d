"""Servers of a model: the request handler, the model archive, TorchServe, clients, and MLflow's deployment target."""
