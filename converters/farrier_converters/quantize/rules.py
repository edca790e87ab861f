"""Which operators integer kernels exist for, and how each treats its scales."""

from __future__ import annotations

# Multiply-accumulate operators: what integers are for.
LINEAR = ("Conv", "Gemm", "MatMul")
# Move or select values: the result has the scale of its first input.
CARRIERS = (
    "MaxPool",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Tile",
    "Pad",
    "Concat",
    "Resize",
)
# Those of them that only move values, from one input: worth quantizing for, where integers follow.
MOVERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad")
# Compute a result with a scale of its own.
ARITHMETIC = ("Add", "Mul", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Relu", "Clip")
# Read by all inputs, not by the first alone.
VARIADIC = ("Concat", "Add", "Mul")
# An engine drops these when a quantizer with the same bounds follows: they belong to the operator before.
ACTIVATIONS = ("Relu", "Clip")
# Results whose range follows from the mathematics; the step of 1/256 makes 0 and the steps exact.
BOUNDED = {"Sigmoid": (0.0, 255 / 256), "Softmax": (0.0, 255 / 256), "HardSigmoid": (0.0, 255 / 256)}

NO_KERNEL = "no integer kernel for {op}"
TAIL = "no operation with weights follows: integers would cost precision and win little"
STEM = "a stem of few channels, kept in float by an option"
SLOWER = "integers would be slower here, by the cost table of this kind of processor"
EXCLUDED = "excluded by an option"
FLOAT_INPUT = "its input {name} is computed in float"
OPSET = "the graph's operator set {version} knows no per-channel quantization, and raising it failed: {why}"
