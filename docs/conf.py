"""Sphinx's configuration: `make site` builds the pages into build/docs, and warnings are errors."""

from importlib import metadata

project = "newsbert"
copyright = "The newsbert authors"  # noqa: A001 - Sphinx's name
version = release = metadata.version("newsbert")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["scripts"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
html_theme = "furo"
html_title = "newsbert"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
# Results and examples are files of the repository, and no pages.
suppress_warnings = ["myst.xref_missing"]
