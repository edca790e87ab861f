"""Quantization without calibration data: weights alone, or activations with ranges found while the model runs."""
