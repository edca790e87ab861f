"""Pruned networks: what they gain in time, what they lose, and what the staircase predicts."""
