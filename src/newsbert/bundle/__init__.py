"""The bundle: the one directory that a prediction depends on."""
