"""Passes that change how weights are stored, and not what is computed with them."""
