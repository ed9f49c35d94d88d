"""Batch inference: the rows of a file of any size, classified into another file."""
