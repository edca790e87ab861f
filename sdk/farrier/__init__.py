"""Farrier: optimize models, put them on devices, and see what they really do."""
