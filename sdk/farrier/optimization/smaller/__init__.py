"""Smaller networks: pruned, or made of fewer layers, taught by the original, and then quantized, under one budget."""
