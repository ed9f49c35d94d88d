"""The version of the installed newsbert."""

from importlib import metadata

__version__ = metadata.version("newsbert")
