"""Coral's Edge TPU: limits of single operators (`table`), the one partition, and both together (`rules`)."""
