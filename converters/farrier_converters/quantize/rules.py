"""Which operators integer kernels exist for, and how each treats its scales."""

from __future__ import annotations

# Multiply-accumulate operators: what integers are for.
LINEAR = ("Conv", "Gemm", "MatMul")
# All that may have integer weights, in some engine.
WEIGHTED = (*LINEAR, "ConvTranspose")
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
    "DepthToSpace",
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

# Results spread over many orders of magnitude, of which one 8-bit scale keeps the largest alone ...
SPREADING = ("Pow", "Exp", "Sqrt", "Reciprocal")
# ... and functions whose result depends on how large their argument is in proportion, not on the difference.
PROPORTIONAL = ("Pow", "Log", "Sqrt", "Reciprocal")
SPREAD = "{op} spreads its values over many orders of magnitude, too many for one scale of 8 bits"
NO_KERNEL = "no integer kernel for {op}"
TAIL = "no operation with weights follows: integers would cost precision and win little"
STEM = "a stem of few channels, kept in float by an option"
SLOWER = "integers would be slower here, by the cost table of this kind of processor"
EXCLUDED = "excluded by an option"
SLOW_PRODUCT = "a product of two tensors of activations is faster in float here"
CONSTANT = "all its operands are constant"
FLOAT_INPUT = "its input {name} is computed in float"
INSIDE = "inside {name}: what a branch or a loop computes is not seen by calibration"
# Operators that compute in integers by themselves, in the standard and in ONNX Runtime's own domain.
INTEGER_OPERATORS = (
    "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul",
    "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid",
    "QLinearSoftmax", "QLinearReduceMean", "QLinearWhere", "QAttention", "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QEmbedLayerNormalization",
)  # fmt: skip
WEIGHT_ONLY = "its weights are int8, its arithmetic float: weight-only"
NO_WEIGHTS = "weight-only, and it has no weights"
STORED = "its weights are stored quantized already, and its input is float"
NOT_DYNAMIC = "dynamic quantization is for MatMul, Gemm and LSTM, not for {op}"
NOT_CONSTANT = "its weights are not constant"
NOT_MATRIX = "its weights are no matrix"
SMALL = "its weights are so few that float is as fast"
SCALED = "it scales or transposes its operands"
LSTM_KIND = "an LSTM with peepholes or batch-first layout has no integer kernel"
NOT_SMOOTHED = "not smoothed: nothing before its input {name} can divide that for it alone"
OPSET = "the graph's operator set {version} cannot be quantized here, and changing it failed: {why}"
# Where quantizers stand on inputs (see `placement.inputs`):
RESULT_FLOAT = "its result is not read as integers alone"
OPERANDS = "its operands differ in shape, or are no activations"
