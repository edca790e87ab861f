"""Zeros in weights: what they cost in accuracy, and what they save."""
