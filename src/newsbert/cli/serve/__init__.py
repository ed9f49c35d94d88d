"""`newsbert serve`: one module per command."""
