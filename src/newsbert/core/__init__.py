"""Foundations without a domain: settings, configuration, files, locks, processes, parsers of foreign text."""
