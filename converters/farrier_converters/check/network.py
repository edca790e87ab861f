"""What TFLite files and ONNX graphs have in common: steps that read and write tensors of so many bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from ..graph.edit import reads
from ..tflite.file import TfliteFile
from . import costs
from .placement import OnnxGraph

# What carries values between precisions is not counted as an operator of an ONNX model.
PLUMBING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class Step:
    """One operator. `reads` are computed tensors alone, not constants; `counted` is False for mere plumbing."""

    name: str
    op: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    multiply_adds: int
    counted: bool = True


@dataclass(frozen=True)
class Network:
    """Steps in order of execution; `sizes` are bytes by tensor (free dimensions count as 1)."""

    steps: tuple[Step, ...]
    sizes: dict[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameter_bytes: int


def of_tflite(file: TfliteFile) -> Network:
    """Describe a TFLite file; tensors are named by their number."""
    constants = {tensor.index for tensor in file.tensors if tensor.data is not None}
    steps = tuple(
        Step(
            file.tensors[operator.outputs[0]].name if operator.outputs else f"operator {operator.index}",
            operator.name,
            tuple(str(i) for i in dict.fromkeys(operator.inputs) if i >= 0 and i not in constants),
            tuple(map(str, operator.outputs)),
            costs.of_tflite(file, operator),
        )
        for operator in file.operators
    )
    read = {i for operator in file.operators for i in operator.inputs}
    sizes = {str(tensor.index): costs.bytes_of(tensor) for tensor in file.tensors}
    parameters = sum(sizes[str(i)] for i in constants & read)
    return Network(steps, sizes, tuple(map(str, file.inputs)), tuple(map(str, file.outputs)), parameters)


def of_onnx(graph: OnnxGraph) -> Network:
    """Describe an ONNX graph whose constants are initializers."""
    proto = graph.model.graph
    constants = {tensor.name: tensor for tensor in proto.initializer}
    steps = tuple(
        Step(
            node.name or next(iter(node.output), node.op_type),
            node.op_type,
            tuple(sorted(name for name in reads(node) if name not in constants)),
            tuple(name for name in node.output if name),
            costs.of_onnx(node, graph.types),
            counted=node.op_type not in PLUMBING,
        )
        for node in proto.node
    )
    names = {name for step in steps for name in (*step.reads, *step.writes)}
    sizes = {name: _bytes(graph, name) for name in names}
    inputs = tuple(value.name for value in proto.input if value.name not in constants)
    outputs = tuple(value.name for value in proto.output)
    parameters = sum(_tensor_bytes(tensor) for tensor in constants.values())
    return Network(steps, sizes, inputs, outputs, parameters)


def _bytes(graph: OnnxGraph, name: str) -> int:
    kind = graph.types.get(name)
    if kind is None or kind.shape is None:
        return 0
    return math.prod(size or 1 for size in kind.shape) * costs.onnx_width(kind.dtype)


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * costs.onnx_width(tensor.data_type)
