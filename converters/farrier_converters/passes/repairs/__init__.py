"""Passes that leave a network's function as it is, and let the rounding that follows lose less."""
