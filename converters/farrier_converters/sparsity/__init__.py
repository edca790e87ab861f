"""Zeros among the weights: where they may be, which they are, what they cost, and what they buy. Without torch."""
