"""Smaller files for the same graph: what is stored in fewer bytes, and how it is read when the file is opened."""
