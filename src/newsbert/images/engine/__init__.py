"""The container engine: the only code that imports the Docker SDK."""
