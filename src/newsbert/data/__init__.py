"""Labelled rows: how files of them are read, cleaned, checked and split."""
