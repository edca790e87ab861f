"""Commands that make a model smaller by training."""
