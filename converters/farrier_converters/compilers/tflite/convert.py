"""An ONNX graph becomes a TFLite file: channels last where kernels want it, and no transpose that is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from farrier_contracts import __version__

from ...graph.fold import RANDOM, compute
from ...model import STANDARD_DOMAINS, Model, subgraphs
from ...tflite import layout
from ...tflite.file import TfliteFile
from ...tflite.layout import BatchError
from ...tflite.versions import versioned
from .builder import Builder, Held, Value
from .ends import input_order, input_tensor, output_tensor
from .errors import Code, ConversionError, Failure, UnsupportedError
from .node import Node
from .ops import HANDLERS
from .prepare import Prepared, free_batch, prepare
from .quantized import CONVERSIONS, lower, why_float

FOLD_BYTES = 1 << 24  # of a result that is computed here
# Weights of 16 bits stay so in the file, and are widened when it is opened; arithmetic on them is float32's.
FLOATS = ("float16", "bfloat16")
HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Lowered:
    """A file, what an engine must know besides, and why nodes of a quantized graph compute in float, by name."""

    file: TfliteFile
    options: dict[str, Any]
    floats: dict[str, str]


def convert(model: Model) -> tuple[TfliteFile, dict[str, Any]]:
    """Return the file, and what an engine must know besides (see `compilers.Compiled`).

    A free batch stays free unless the graph computes with the number of rows; then it is one. Raises ConversionError,
    which names every node that has no counterpart, and InputError for free sizes besides the batch.
    """
    lowered = lower_model(model)
    return lowered.file, lowered.options


def lower_model(model: Model, *, integer_ends: bool = False) -> Lowered:
    """Convert as `convert` does; with `integer_ends`, inputs and outputs that have a scale are 8-bit integers."""
    if free_batch(model):
        try:
            return _attempt(model, rows=True, integer_ends=integer_ends)
        except BatchError:
            pass
    try:
        return _attempt(model, rows=False, integer_ends=integer_ends)
    except BatchError as error:  # a model of sizes that no tensor has
        failure = Failure(Code.SHAPE, "graph", model.name, str(error))
        raise ConversionError(model.name, [failure]) from None


def _attempt(model: Model, *, rows: bool, integer_ends: bool) -> Lowered:
    prepared = prepare(model, rows=rows)
    b = Builder(integers_only=integer_ends)
    values: dict[str, Value] = {}
    failures: list[Failure] = []
    floats: dict[str, str] = {}
    inputs = _inputs(b, prepared, values, failures, integer_ends=integer_ends)
    failures += _lower_all(b, prepared, values, floats)
    taken = {held.index for _, held, _ in inputs}
    outputs = [] if failures else _outputs(b, prepared, values, taken, failures, integer_ends=integer_ends)
    if failures:
        raise ConversionError(model.name, failures)
    ends = [[(name, held) for name, held, _ in side] for side in (inputs, outputs)]
    file = b.finish(ends[0], ends[1], f"made by farrier {__version__}")
    moved = {
        name: list(order) for name, _, order in (*inputs, *outputs) if order != layout.identity(len(order))
    }
    rounded = [
        name
        for name, held, _ in (*inputs, *outputs)
        if held.quanta is not None and prepared.types[name].dtype == onnx.TensorProto.FLOAT
    ]
    options = {"layouts": moved} if moved else {}
    return Lowered(versioned(file), options | ({"quantized": rounded} if rounded else {}), floats)


End = tuple[
    str, Held, layout.Order
]  # an input or output: its name, the tensor, and the order that this is stored in


def _inputs(
    b: Builder,
    prepared: Prepared,
    values: dict[str, Value],
    failures: list[Failure],
    *,
    integer_ends: bool,
) -> list[End]:
    ends: list[End] = []
    for info in prepared.graph.inputs:
        try:
            value = _value(prepared, info.name)
            if info.type.tensor_type.elem_type in HALVES:
                raise UnsupportedError(Code.DTYPE, "floats of 16 bits, which no engine takes from outside")
            order = input_order(prepared.graph, value)
            held = input_tensor(b, value, order, integers=integer_ends)
        except UnsupportedError as error:
            failures.append(Failure(error.code, "input", info.name, str(error)))
            continue
        values[info.name] = value
        ends.append((info.name, held, order))
    return ends


def _outputs(
    b: Builder,
    prepared: Prepared,
    values: dict[str, Value],
    taken: set[int],
    failures: list[Failure],
    *,
    integer_ends: bool,
) -> list[End]:
    ends: list[End] = []
    for name in prepared.graph.outputs:
        b.scope = name
        try:
            value = values.get(name) or _value(prepared, name)
            stored = value.integers if integer_ends and value.integers is not None else value
            held, order = output_tensor(b, stored, taken)
            if held.quanta is not None and prepared.types[name].dtype == onnx.TensorProto.UINT8:
                held = b.requantize(held, held.quanta.raised(), "uint8")
        except UnsupportedError as error:
            failures.append(Failure(error.code, "output", name, str(error)))
            continue
        taken.add(held.index)
        ends.append((name, held, order))
    return ends


def _lower_all(
    b: Builder, prepared: Prepared, values: dict[str, Value], floats: dict[str, str]
) -> list[Failure]:
    """Lower every node; one that reads what a failed node makes is not a failure of its own."""
    failures: list[Failure] = []
    broken = {info.name for info in prepared.graph.inputs} - values.keys()
    for node in prepared.graph.ordered():
        if broken.intersection(node.input):
            broken.update(node.output)
            continue
        b.scope = node.output[0] or node.name or node.op_type
        try:
            reason = _lower(b, prepared, node, values)
            if reason is not None and prepared.scales:
                floats[node.name or node.output[0]] = reason
            continue
        except BatchError:
            raise
        except UnsupportedError as error:
            code, message = error.code, str(error)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            code, message = Code.NODE, f"it does not fit what it reads: {error}"
        failures.append(Failure(code, node.op_type, node.name or node.output[0], message))
        broken.update(node.output)
    return failures


def _lower(b: Builder, prepared: Prepared, node: onnx.NodeProto, values: dict[str, Value]) -> str | None:
    """Append a node's operators; return why they compute in float, where they do and could be expected not to."""
    handlers = HANDLERS | CONVERSIONS
    handler = handlers.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
    if handler is None:
        raise UnsupportedError(Code.OPERATOR, "the operator has no counterpart in TFLite")
    inputs = tuple(_input(prepared, name, values) if name else None for name in node.input)
    outputs = tuple(_value(prepared, name) if name else None for name in node.output)
    values.update({value.name: value for value in outputs if value is not None})
    if node.op_type not in CONVERSIONS and _folded(prepared, node, inputs, outputs):
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    lowered = Node(node.op_type, node.name, prepared.graph.opset, inputs, outputs, attributes)
    if lower(b, lowered, HANDLERS):
        return None
    handler(b, lowered)
    computed = any(v is not None and v.dtype == "float32" and v.constant is None for v in outputs)
    return why_float(b, lowered) if computed and node.op_type not in CONVERSIONS else None


def _folded(
    prepared: Prepared,
    node: onnx.NodeProto,
    inputs: Sequence[Value | None],
    outputs: Sequence[Value | None],
) -> bool:
    """Compute a node of constants, which cleaning leaves where it makes an output; says whether it could."""
    if node.op_type in RANDOM or any(v is not None and v.constant is None for v in inputs):
        return False
    if any(subgraphs(node)) or not all(name in prepared.graph.initializers for name in node.input if name):
        return False
    results = compute(prepared.graph, node, max_bytes=FOLD_BYTES)
    if results is None:
        return False
    for value, result in zip(outputs, results, strict=True):
        if value is not None:
            value.constant, value.known_shape = result, result.shape
    return True


def _input(prepared: Prepared, name: str, values: dict[str, Value]) -> Value:
    if name not in values:
        values[name] = _value(prepared, name)
    return values[name]


def _value(prepared: Prepared, name: str) -> Value:
    """Return what is known of a tensor; raises UnsupportedError where its type is not."""
    graph = prepared.graph
    readers = sum(list(node.input).count(name) for node in graph.readers.get(name, [])) + graph.outputs.count(
        name
    )
    constant = graph.constant(name)
    if constant is not None:
        dtype = _dtype(constant.dtype.name)
        return Value(name, constant.shape, dtype, readers, constant=_plain(constant))
    kind = prepared.types.get(name)
    if kind is None:
        raise UnsupportedError(Code.SHAPE, f"the type of {name!r} depends on the data")
    dtype = (
        np.dtype(object)
        if kind.dtype == onnx.TensorProto.STRING
        else helper.tensor_dtype_to_np_dtype(kind.dtype)
    )
    known = kind.shape is not None and None not in kind.shape
    shape = tuple(int(size or 0) for size in kind.shape or ()) if known else None
    return Value(name, shape, _dtype(dtype.name), readers, quanta=prepared.scales.get(name))


def _dtype(name: str) -> str:
    return "float32" if name in FLOATS else name


def _plain(constant: np.ndarray) -> np.ndarray:
    return constant.astype(np.float32) if constant.dtype.name == "bfloat16" else constant
