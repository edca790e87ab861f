"""Recipes that train: distillation, fine-tuning, quantization-aware training."""
