"""Inference, from a bundle and texts to probabilities: runtimes, models, explanations."""
