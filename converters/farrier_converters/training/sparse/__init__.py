"""Sparsity that needs gradients: importance from them, and hooks that raise sparsity and keep zeros."""
