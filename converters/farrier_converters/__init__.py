"""Model optimization on the ONNX graph: passes, quantization, measurement."""
