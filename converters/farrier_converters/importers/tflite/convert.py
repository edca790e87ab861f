"""A float TFLite graph becomes ONNX: NCHW inside, the file's own names and shapes outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from farrier_contracts.errors import InputError

from ...model import Model, from_proto
from ...tflite import layout, schema
from ...tflite.file import Operator, Tensor, TfliteFile
from ...tflite.layout import BATCH, BatchError
from .builder import Builder, Value, checked
from .check import rows_are_independent
from .fold import fold
from .ops import HANDLERS, Operation
from .ops._operation import UnsupportedError

OPSET = 17
IR_VERSION = 8
PLAIN = ("float32", "int32", "int64", "bool")
INTEGERS = ("int8", "uint8", "int16", "int4")
CONSTANTS = ("RANGE", "ZEROS_LIKE", "FLOOR_DIV", "FLOOR_MOD")  # taken where they compute shapes
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")


def convert(file: TfliteFile, path: Path) -> tuple[Model, tuple[str, ...]]:
    """Return the model and notes on it; the batch is free where every input starts with it and nothing mixes rows.

    Raises InputError, naming the operator and its index, for what is quantized, custom or unknown here.
    """
    refuse(file, path)
    reason = ""
    if _may_free(file):
        try:
            model, notes = _attempt(file, path, rows=BATCH)
            if rows_are_independent(model):
                return model, notes
            reason = "its rows influence each other"
        except BatchError as error:
            reason = str(error)
    try:
        model, notes = _attempt(file, path, rows=None)
    except BatchError as error:  # sizes that no tensor has
        raise InputError(f"{path} is damaged: {error}") from None
    return model, (*notes, *([f"the batch stays fixed: {reason}"] if reason else []))


def refuse(file: TfliteFile, path: Path) -> None:
    """Raise InputError for the first operator that a float importer cannot take."""
    for op in file.operators:
        where = f"{path}: operator {op.index} ({op.name.removeprefix('CUSTOM:')})"
        if op.name.startswith("CUSTOM:"):
            raise InputError(f"{where} is a custom operator, which only its maker's runtime knows")
        if op.name in schema.CONTROL_FLOW:
            raise InputError(f"{where} is control flow, which cannot be imported; unroll it when converting")
        inputs = [file.tensors[i] for i in op.inputs if i >= 0]
        results = [file.tensors[i] for i in op.outputs]
        if any(t.dtype in INTEGERS and t.data is None for t in (*inputs, *results)) and not _folds(
            op, inputs
        ):
            raise InputError(
                f"{where} is quantized already; import the float model that this file was made from"
            )
        if any(t.sparse for t in inputs):
            raise InputError(f"{where} has sparse weights; convert the model without sparsity")
        if op.name not in HANDLERS and not _folds(op, inputs):
            raise InputError(f"{where} has no counterpart here")


def _folds(op: Operator, inputs: list[Tensor]) -> bool:
    """Say whether an operator needs no counterpart, because its value is known while importing."""
    return op.name in CONSTANTS or (op.name == "DEQUANTIZE" and all(t.data is not None for t in inputs))


def _hybrid(file: TfliteFile) -> set[int]:
    """Return the weights that are stored as integers and meet float activations."""
    weighted = [op for op in file.operators if op.name in WEIGHTED]
    return {i for op in weighted for i in op.inputs if i >= 0 and file.tensors[i].dtype in INTEGERS}


def _may_free(file: TfliteFile) -> bool:
    return all(file.tensors[i].shape[:1] == (1,) for i in file.inputs)


def _attempt(file: TfliteFile, path: Path, *, rows: int | None) -> tuple[Model, tuple[str, ...]]:
    b = Builder()
    values = _values(b, file, path, rows)
    fixed = all(file.tensors[i].signature[:1] != (-1,) for i in file.inputs)
    for op in file.operators:
        try:
            _lower(b, file, op, values, fixed)
        except BatchError as error:
            if rows is not None:
                raise
            raise InputError(f"{path}: operator {op.index} ({op.name}) is damaged: {error}") from None
        except UnsupportedError as error:
            raise InputError(f"{path}: operator {op.index} ({op.name}) cannot be imported: {error}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path}: operator {op.index} ({op.name}) is damaged: {error}") from None
    return _finish(b, file, values, path), tuple(b.notes)


def _values(b: Builder, file: TfliteFile, path: Path, rows: int | None) -> list[Value]:
    values = []
    hybrid = _hybrid(file)
    if hybrid:
        b.notes.append(
            f"{len(hybrid)} weights are stored with 8 bits: they are imported at their exact values, and activations "
            "stay in float, where TFLite quantizes them anew in each run"
        )
    for tensor in file.tensors:
        value = Value(tensor.name or f"tensor_{tensor.index}", tensor.shape, tensor.dtype)
        if tensor.variable:
            value.constant = np.zeros(1, np.float32)
        elif tensor.index in hybrid and tensor.data is not None:
            value.constant, value.dtype = _dequantized(tensor.data, tensor), "float32"
        elif tensor.data is not None:
            value.constant = tensor.data
        values.append(value)
    for index in file.inputs:
        tensor, value = file.tensors[index], values[index]
        if tensor.dtype not in PLAIN or tensor.data is not None:
            raise InputError(
                f"{path}: the input {tensor.name!r} is of type {tensor.dtype}, which is not float"
            )
        if -1 in tensor.signature[1:]:
            raise InputError(
                f"{path}: the input {tensor.name!r} has free sizes besides the batch: {list(tensor.signature)}; "
                "fix them when converting"
            )
        try:
            shape = checked(tensor.shape if rows is None else (rows, *tensor.shape[1:]))
        except ValueError as error:
            raise InputError(f"{path}: the input {tensor.name!r} is damaged: {error}") from None
        b.put(value, b.fresh(value.name), None, shape)
    b.first_input = next((values[i].forms[layout.identity(values[i].rank)] for i in file.inputs), "")
    b.reserve(values[index].name for index in file.outputs)
    return values


def _lower(b: Builder, file: TfliteFile, op: Operator, values: list[Value], fixed: bool) -> None:
    inputs = tuple(None if i < 0 else values[i] for i in op.inputs)
    outputs = tuple(values[i] for i in op.outputs)
    if any(value.forms or value.constant is not None for value in outputs):
        raise ValueError("it writes a tensor that is already there")
    constants = [v.constant for v in inputs if v is not None]
    if outputs and constants and all(c is not None for c in constants):
        tensors = [file.tensors[i] for i in op.inputs if i >= 0]
        folded = _folded(op, [c for c in constants if c is not None], tensors, outputs[0].dtype)
        if folded is not None:
            outputs[0].constant, outputs[0].shape = folded, folded.shape
            return
    if op.name not in HANDLERS:
        raise UnsupportedError("its value depends on the data")
    HANDLERS[op.name](b, Operation(op.name, inputs, outputs, op.options, fixed))


def _folded(op: Operator, values: list[np.ndarray], tensors: list[Tensor], dtype: str) -> np.ndarray | None:
    if op.name == "DEQUANTIZE":
        return _dequantized(values[0], tensors[0])
    return fold(op.name, values, op.options, dtype)


def _dequantized(value: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Weights that are only stored as float16 or integers."""
    if tensor.dtype not in INTEGERS:
        return value.astype(np.float32)
    shape = [1] * value.ndim
    if len(tensor.scales) > 1:
        shape[tensor.axis] = len(tensor.scales)
    scales, zeros = tensor.scales.reshape(shape), tensor.zero_points.reshape(shape)
    return ((value.astype(np.float32) - zeros) * scales).astype(np.float32)


def _finish(b: Builder, file: TfliteFile, values: list[Value], path: Path) -> Model:
    try:
        outputs = _outputs(b, [values[index] for index in file.outputs])
    except BatchError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    nodes = _live(b.nodes, {name for name, _ in outputs})
    used = {name for node in nodes for name in node.input}
    free = any(layout.free(values[i].shape[0]) for i in file.inputs if values[i].shape)
    if free and any(v.shape[:1] != (BATCH,) or any(map(layout.free, v.shape[1:])) for _, v in outputs):
        raise BatchError("an output does not have one entry per row")
    graph = helper.make_graph(
        nodes,
        path.stem or "graph",
        [_info(b.get(values[i]), values[i]) for i in file.inputs],
        [_info(name, value) for name, value in outputs],
        [tensor for name, tensor in b.initializers.items() if name in used],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="farrier"
    )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        line = next((part.strip() for part in str(error).splitlines() if part.strip()), "unknown error")
        raise InputError(f"{path} cannot be expressed as an ONNX graph: {line}") from None
    return from_proto(proto, path.stem)


def _outputs(b: Builder, values: list[Value]) -> list[tuple[str, Value]]:
    """Give each output the file's own order of axes and name, which was kept free for it."""
    renames: dict[str, str] = {}
    results: list[tuple[str, Value]] = []
    for value in values:
        held = b.get(value)
        if held in renames or held not in b.made():
            held = b.node("Identity", [held], f"{value.name}/copy")
        taken = value.name not in b.reserved or value.name in renames.values()
        renames[held] = b.fresh(f"{value.name}/output") if taken else value.name
        results.append((renames[held], value))
    b.rename(renames)
    return results


def _live(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    shape = ["batch" if layout.free(s) else s for s in value.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), shape)
