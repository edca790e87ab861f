"""The parts of TFLite's schema that readers and writers need: names of operators, slots of their options.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs (numbers never change there).
"""

from __future__ import annotations

from .flatbuffer import FLOAT32, INT8, INT32, Scalar

IDENTIFIER = b"TFL3"
VERSION = 3

_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP
FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX
SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE
UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX
DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER
GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL
NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT
LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2
ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY
SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG
REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL
GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM
ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD
STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT
STABLEHLO_CASE
"""
OPERATORS = tuple(_NAMES.split())  # in the order of their numbers
CUSTOM = OPERATORS.index("CUSTOM")
CONTROL_FLOW = ("CALL", "IF", "WHILE", "CALL_ONCE")

DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    15: "uint32",
    16: "uint16",
}
TYPES = dict(DTYPES) | {
    5: "string",
    8: "complex64",
    11: "complex128",
    12: "uint64",
    13: "resource",
    14: "variant",
    17: "int4",
    18: "bfloat16",
    19: "int2",
    20: "uint4",
    21: "float8_e4m3fn",
    22: "float8_e5m2",
}
NUMBERS = {name: number for number, name in TYPES.items()}

ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
TANH = 4  # of recurrent layers only
SAME, VALID = 0, 1
REFLECT, SYMMETRIC = 0, 1  # of MIRROR_PAD

REDUCERS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL")

Fields = dict[str, tuple[int, Scalar, float]]  # name -> slot, how it is stored, default


def _integers(*names: str) -> Fields:
    return {name: (slot, INT32, 0) for slot, name in enumerate(names) if name}


def _flags(*names: str) -> Fields:
    return {name: (slot, INT8, 0) for slot, name in enumerate(names) if name}


_CONV: Fields = {
    "padding": (0, INT8, 0),
    "stride_w": (1, INT32, 0),
    "stride_h": (2, INT32, 0),
    "activation": (3, INT8, 0),
}
_POOL: Fields = {
    **_CONV,
    "filter_w": (3, INT32, 0),
    "filter_h": (4, INT32, 0),
    "activation": (5, INT8, 0),
}
_RESIZE = ("align_corners", "half_pixel")
OPTIONS: dict[str, Fields] = {
    "CONV_2D": {**_CONV, "dilation_w": (4, INT32, 1), "dilation_h": (5, INT32, 1)},
    "DEPTHWISE_CONV_2D": {
        **_CONV,
        "multiplier": (3, INT32, 0),
        "activation": (4, INT8, 0),
        "dilation_w": (5, INT32, 1),
        "dilation_h": (6, INT32, 1),
    },
    "TRANSPOSE_CONV": _CONV,
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "FULLY_CONNECTED": _flags("activation", "weights_format", "keep_dims"),
    "CONCATENATION": {"axis": (0, INT32, 0), "activation": (1, INT8, 0)},
    "SOFTMAX": {"beta": (0, FLOAT32, 0)},
    "LEAKY_RELU": {"alpha": (0, FLOAT32, 0)},
    "GELU": _flags("approximate"),
    "MIRROR_PAD": _flags("mode"),
    "RESIZE_BILINEAR": _flags("", "", *_RESIZE),
    "RESIZE_NEAREST_NEIGHBOR": _flags(*_RESIZE),
    "SPLIT": _integers("count"),
    "SPLIT_V": _integers("count"),
    "STRIDED_SLICE": {
        **_integers("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
        "offset": (5, INT8, 0),
    },
    "GATHER": _integers("axis", "batch_dims"),
    "SHAPE": _flags("type"),
    "PACK": _integers("count", "axis"),
    "UNPACK": _integers("count", "axis"),
    "BATCH_MATMUL": _flags("adjoint_x", "adjoint_y"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": {
        "activation": (0, INT8, 0),
        "cell_clip": (1, FLOAT32, 0),
        "projection_clip": (2, FLOAT32, 0),
        "time_major": (3, INT8, 0),
        "diagonal": (5, INT8, 0),
    },
    "LOCAL_RESPONSE_NORMALIZATION": {
        "radius": (0, INT32, 0),
        "bias": (1, FLOAT32, 0),
        "alpha": (2, FLOAT32, 0),
        "beta": (3, FLOAT32, 0),
    },
    "CONV_3D": {
        "padding": (0, INT8, 0),
        **{f"stride_{axis}": (1 + i, INT32, 0) for i, axis in enumerate("dwh")},
        "activation": (4, INT8, 0),
        **{f"dilation_{axis}": (5 + i, INT32, 1) for i, axis in enumerate("dwh")},
    },
    "CAST": _flags("from_type", "to_type"),
    "CUMSUM": _flags("exclusive", "reverse"),
    "ONE_HOT": _integers("axis"),
    "REVERSE_SEQUENCE": _integers("sequence_axis", "batch_axis"),
    "ARG_MAX": _flags("type"),
    "ARG_MIN": _flags("type"),
    "SPACE_TO_DEPTH": _integers("block"),
    "DEPTH_TO_SPACE": _integers("block"),
    **{name: _flags("activation") for name in ("ADD", "SUB", "MUL", "DIV", "L2_NORMALIZATION")},
    **{name: _flags("keep_dims") for name in REDUCERS},
}
LISTS = {"RESHAPE": ("shape", 0), "SQUEEZE": ("axes", 0)}  # options that are lists of int32

_UNION = """
Conv2D DepthwiseConv2D ConcatEmbeddings LSHProjection Pool2D SVDF RNN FullyConnected Softmax Concatenation
Add L2Norm LocalResponseNormalization LSTM ResizeBilinear Call Reshape SkipGram SpaceToDepth
EmbeddingLookupSparse Mul Pad Gather BatchToSpaceND SpaceToBatchND Transpose Reducer Sub Div Squeeze
SequenceRNN StridedSlice Exp TopKV2 Split LogSoftmax Cast Dequantize MaximumMinimum ArgMax Less Neg PadV2
Greater GreaterEqual LessEqual Select Slice TransposeConv SparseToDense Tile ExpandDims Equal NotEqual
Shape Pow ArgMin FakeQuant Pack LogicalOr OneHot LogicalAnd LogicalNot Unpack FloorDiv Square ZerosLike
Fill BidirectionalSequenceLSTM BidirectionalSequenceRNN UnidirectionalSequenceLSTM FloorMod Range
ResizeNearestNeighbor LeakyRelu SquaredDifference MirrorPad Abs SplitV Unique ReverseV2 AddN GatherNd Cos
Where Rank ReverseSequence MatrixDiag Quantize MatrixSetDiag HardSwish If While DepthToSpace
NonMaxSuppressionV4 NonMaxSuppressionV5 ScatterNd SelectV2 Densify SegmentSum BatchMatMul Cumsum CallOnce
BroadcastTo Rfft2d Conv3D Hashtable HashtableFind HashtableImport HashtableSize VarHandle ReadVariable
AssignVariable Random Bucketize Gelu DynamicUpdateSlice UnsortedSegmentProd UnsortedSegmentMax
UnsortedSegmentMin UnsortedSegmentSum ATan2 Sign Bitcast BitwiseXor RightShift
"""
_SHARED = {  # operators whose options are not called after them
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "AVERAGE_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "L2_POOL_2D": "Pool2D",
    "L2_NORMALIZATION": "L2Norm",
    "MAXIMUM": "MaximumMinimum",
    "MINIMUM": "MaximumMinimum",
    "CONV_3D": "Conv3D",
    "CONV_3D_TRANSPOSE": "Conv3D",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNN",
    "RANDOM_UNIFORM": "Random",
    "RANDOM_STANDARD_NORMAL": "Random",
    "MULTINOMIAL": "Random",
    **dict.fromkeys(REDUCERS, "Reducer"),
}


def _union() -> dict[str, int]:
    """Return each operator's number in the union of options; operators that have none are missing."""
    numbers = {name.lower(): number for number, name in enumerate(_UNION.split(), 1)}
    own = {name: numbers.get(name.replace("_", "").lower(), 0) for name in OPERATORS}
    own |= {name: numbers[shared.lower()] for name, shared in _SHARED.items()}
    return {name: number for name, number in own.items() if number}


UNION = _union()
