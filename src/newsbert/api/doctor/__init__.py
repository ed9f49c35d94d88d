"""Checks of this machine, and of the services that newsbert uses from it."""
