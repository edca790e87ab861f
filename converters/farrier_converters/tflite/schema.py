"""The parts of TFLite's schema that an importer needs: names of operators, slots of their options.

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
SEGMENT_SUM BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL
GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM
ATAN2 UNSORTED_SEGMENT_MIN SIGN
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
TYPES = dict(DTYPES) | {5: "string", 8: "complex64", 17: "int4", 18: "bfloat16", 19: "int2", 20: "uint4"}

ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
TANH = 4  # of recurrent layers only
SAME = 0

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
    "ARG_MAX": _flags("type"),
    "ARG_MIN": _flags("type"),
    "SPACE_TO_DEPTH": _integers("block"),
    "DEPTH_TO_SPACE": _integers("block"),
    **{name: _flags("activation") for name in ("ADD", "SUB", "MUL", "DIV", "L2_NORMALIZATION")},
    **{name: _flags("keep_dims") for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")},
}
LISTS = {"RESHAPE": ("shape", 0), "SQUEEZE": ("axes", 0)}  # options that are lists of int32
