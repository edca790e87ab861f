"""What makes integers fast in ONNX Runtime on x86: a cost table, a placement by it, and channels its kernels want."""
