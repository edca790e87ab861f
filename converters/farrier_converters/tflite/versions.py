"""The version of each operator's definition that a file needs, and the oldest runtime that knows it.

Source: tflite/tools/versioning/op_version.cc of LiteRT. A runtime refuses a file whose operators
are newer than it is, so that each operator gets the lowest version that holds what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .file import Operator, Tensor, TfliteFile
from .runtimes import RUNTIMES

Kinds = tuple[str, ...]  # element types of the inputs
Rule = Callable[[Operator, Sequence[Tensor | None], Kinds], int]
_INT8_IS_2 = """
AVERAGE_POOL_2D MAX_POOL_2D SOFTMAX MEAN MIRROR_PAD REDUCE_MAX REDUCE_MIN RELU6 RSQRT CONCATENATION TANH
LOGISTIC SPACE_TO_DEPTH SUM LOG_SOFTMAX GREATER LESS_EQUAL LESS GREATER_EQUAL EQUAL NOT_EQUAL
SQUARED_DIFFERENCE DEPTH_TO_SPACE EXP LOG REDUCE_PROD BATCH_MATMUL PACK L2_NORMALIZATION RELU TOPK_V2 SPLIT_V
"""
INT8_IS_2 = frozenset(_INT8_IS_2.split())
BYTES = ("int8", "uint8")
RUNTIME = "min_runtime_version"  # the entry of the metadata, 16 bytes


def versioned(file: TfliteFile) -> TfliteFile:
    """Return the file with the exact version at each operator, and the runtime that these need in its metadata."""
    operators = tuple(replace(o, version=version(o, file.tensors)) for o in file.operators)
    oldest = (
        max((_number(first_runtime(o)), first_runtime(o)) for o in operators)[1] if operators else "1.5.0"
    )
    kept = tuple(entry for entry in file.metadata if entry[0] != RUNTIME)
    return replace(file, operators=operators, metadata=(*kept, (RUNTIME, oldest.encode().ljust(16, b"\0"))))


def version(operator: Operator, tensors: Sequence[Tensor]) -> int:
    """Return the lowest version of an operator's definition that holds what it uses."""
    inputs = [None if i < 0 else tensors[i] for i in operator.inputs]
    kinds = tuple("" if t is None else t.dtype for t in inputs)
    if operator.name in RULES:
        return RULES[operator.name](operator, inputs, kinds)
    return 2 if operator.name in INT8_IS_2 and kinds[:1] == ("int8",) else 1


def first_runtime(operator: Operator) -> str:
    """Return the first release of the runtime that knows this version of an operator."""
    releases = RUNTIMES.get(operator.name, ("1.14.0",))
    return releases[min(operator.version, len(releases)) - 1]


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def _rank(inputs: Sequence[Tensor | None]) -> int:
    return max((len(t.shape) for t in inputs if t is not None), default=0)


def _broadcasts(inputs: Sequence[Tensor | None]) -> bool:
    return len({t.shape for t in inputs if t is not None}) > 1


def _per_channel(tensor: Tensor | None) -> bool:
    return tensor is not None and len(tensor.scales) > 1


def _by_pair(kinds: Kinds, table: dict[tuple[str, ...], int], default: int) -> int:
    """Return the version for the types of an input and of weights."""
    return table.get(kinds[:2], default)


def _conv(operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    x, weight = inputs[0], inputs[1]
    if x is not None and weight is not None and x.shape[-1] != weight.shape[-1]:
        return 6  # groups
    if kinds[:2] == ("int8", "int8"):
        return 3
    if kinds[:2] == ("float32", "int8"):
        return 5 if _per_channel(weight) else 2
    return _by_pair(kinds, {("int8", "int4"): 7, ("int16", "int8"): 4}, 1)


def _depthwise(operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    if kinds[:2] == ("int8", "int8"):
        return 3
    if kinds[:2] == ("float32", "int8"):
        return 6 if _per_channel(inputs[1]) else 4
    dilated = operator.options.get("dilation_w", 1) != 1 or operator.options.get("dilation_h", 1) != 1
    return _by_pair(kinds, {("int8", "int4"): 7, ("int16", "int8"): 5}, 2 if dilated else 1)


def _dense(operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    if kinds[:2] == ("float32", "int8") and _per_channel(inputs[1]):
        return 12
    if len(operator.inputs) == 2:
        return 6
    if operator.options.get("keep_dims"):
        return 5
    table: dict[tuple[str, ...], int] = {
        ("int8", "int8"): 4,
        ("int8", "int4"): 10,
        ("float32", "int8"): 3,
        ("int16", "int8"): 7,
    }
    return _by_pair(kinds, table, 1)


def _multiply(_operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    if kinds[0] == "int64":
        return 5
    return 2 if kinds[0] == "int8" else 1


def _transpose_conv(operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    if operator.options.get("activation"):
        return 4
    if len(inputs) == 4 and inputs[3] is not None:
        return 3
    return 2 if kinds[1] == "int8" else 1


def _resize(operator: Operator, _inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    nearest = operator.name == "RESIZE_NEAREST_NEIGHBOR"
    if operator.options.get("half_pixel") or (nearest and operator.options.get("align_corners")):
        return 3
    return 2 if kinds[0] == "int8" else 1


def _cast(operator: Operator, _inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    involved = {kinds[0], operator.options.get("to")}
    for number, types in ((7, {"bfloat16"}), (5, {"float64", "float16"}), (4, {"uint16"}), (3, {"int8"})):
        if involved & types:
            return number
    return 2 if "uint32" in involved else 1


def _dequantize(_operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    if kinds[0] == "int8" and _per_channel(inputs[0]):
        return 5
    return {"int4": 6, "int16": 3, "float16": 3, "int8": 2}.get(kinds[0], 1)


def _where_dtype(table: dict[str, int], position: int = 0) -> Rule:
    return lambda _operator, _inputs, kinds: table.get(kinds[position], 1) if len(kinds) > position else 1


def _high_rank(limit: int, number: int, table: dict[str, int], *, broadcast: bool = False) -> Rule:
    """A version for ranks beyond `limit` (where shapes differ, if `broadcast`); a version by type for the rest."""

    def rule(_operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
        counted = inputs if broadcast else inputs[:1]
        if _rank(counted) > limit and (not broadcast or _broadcasts(inputs)):
            return number
        return table.get(kinds[0], 1)

    return rule


def _transpose(_operator: Operator, inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    rank = _rank(inputs[:1])
    if rank > 4:
        return 6 if rank > 5 else 4
    return {"int8": 2, "bool": 3, "int16": 5}.get(kinds[0], 1)


def _gather(operator: Operator, _inputs: Sequence[Tensor | None], kinds: Kinds) -> int:
    return 5 if operator.options.get("batch_dims") else {"int8": 2, "bool": 3, "int16": 4}.get(kinds[0], 1)


RULES: dict[str, Rule] = {
    "ABS": _where_dtype({"int8": 2, "uint8": 2, "int16": 3, "int32": 5}),
    "ADD": _where_dtype({"int8": 2, "int16": 3, "int64": 4}),
    "ARG_MAX": _where_dtype({"int8": 2, "bool": 3}),
    "ARG_MIN": _where_dtype({"int8": 2, "bool": 3}),
    "BATCH_TO_SPACE_ND": lambda _o, inputs, kinds: (
        3 if _rank(inputs[:1]) != 4 else 2 if kinds[0] == "int8" else 1
    ),
    "BROADCAST_TO": lambda _o, _i, kinds: 3 if kinds[0] in ("int8", "int16") else 2,
    "CAST": _cast,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "DIV": _high_rank(4, 2, {}, broadcast=True),
    "FILL": _where_dtype({"bool": 2, "int8": 3, "int16": 3, "float16": 4}, position=1),
    "FLOOR_DIV": _where_dtype({"float32": 2, "int8": 3, "int16": 3}),
    "FLOOR_MOD": _where_dtype({"int8": 2, "int16": 2}),
    "FULLY_CONNECTED": _dense,
    "GATHER": _gather,
    "GATHER_ND": _where_dtype({"int16": 3, "bool": 5}),
    "GELU": lambda _o, _i, kinds: 2 if kinds[0] in BYTES else 1,
    "LEAKY_RELU": _where_dtype({"int16": 2}),
    "MAXIMUM": _high_rank(4, 3, {"int8": 2}, broadcast=True),
    "MINIMUM": _high_rank(4, 3, {"int8": 2}, broadcast=True),
    "MUL": _multiply,
    "PAD": _high_rank(4, 4, {"int8": 2, "int16": 3}),
    "PADV2": _high_rank(4, 4, {"int8": 2, "int16": 3}),
    "QUANTIZE": lambda o, _i, kinds: 1,
    "RANGE": _where_dtype({"int64": 2}),
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "REVERSE_V2": _where_dtype({"bool": 2, "int8": 3}),
    "SELECT": _high_rank(4, 3, {"int8": 2}),
    "SIGN": _where_dtype({"int32": 2}),
    "SLICE": _high_rank(4, 5, {"int8": 2, "int16": 4}),
    "SPLIT": _where_dtype({"int8": 2, "int32": 3, "int16": 4}, position=1),
    "STRIDED_SLICE": _high_rank(4, 4, {"int8": 2, "bool": 3}),
    "SUB": lambda o, inputs, kinds: 4 if kinds[0] == "int64" else _SUB(o, inputs, kinds),
    "TILE": _where_dtype({"int8": 3}),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNPACK": _where_dtype({"int8": 2, "uint8": 2, "bool": 3}),
    "WHERE": lambda _o, _i, kinds: 1 if kinds[0] == "bool" else 2,
}
_SUB = _high_rank(4, 3, {"int8": 2}, broadcast=True)
