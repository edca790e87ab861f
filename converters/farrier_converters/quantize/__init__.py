"""Static integer quantization: ranges, scales, placement, and the QDQ graph."""
