"""Repairs of what rounding does to a network: shared-out ranges, and biases that take mean errors back."""
