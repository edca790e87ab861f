"""Structured pruning on the ONNX graph itself, with numpy and onnx alone: which channels hang together, which go."""
