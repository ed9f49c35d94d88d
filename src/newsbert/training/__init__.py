"""Training, from labelled rows to a verified bundle: strategies, training loop, checkpoints, distribution."""
