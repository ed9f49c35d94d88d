"""A tracking server: MLflow's own, with its database, its artifacts and its accounts."""
