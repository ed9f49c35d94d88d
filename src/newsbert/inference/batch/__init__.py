"""Batch inference: classification of the rows of a file of any size into another file."""
