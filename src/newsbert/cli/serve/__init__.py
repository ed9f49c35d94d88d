"""`newsbert serve`: a module for each command."""
