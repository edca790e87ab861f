"""From an ONNX graph to a list of steps: a torch function each, with the names that it reads and makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from farrier_contracts.errors import InputError

from ..graph.edit import CONSTANT_FIELDS, attribute, standard
from ..graph.types import infer
from ..model import Model, opset
from . import ops
from .fuse import fake_quantizers
from .ops.quantized import fake_quantize


@dataclass(frozen=True)
class Step:
    """`outputs = function(*inputs)`; a stateful one takes `training` and `keep` (statistics stay) as well."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stateful: bool = False


@dataclass
class Program:
    """A lowered graph. `guards` says, in words, what held for the example and has to hold for every input."""

    steps: list[Step] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)  # of the graph and of the branches taken
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    guards: list[str] = field(default_factory=list)


def lower(model: Model, example: Mapping[str, np.ndarray]) -> Program:
    """Return the steps of a model; raises InputError for what cannot be trained.

    An If whose condition follows from shapes is replaced by the branch that `example` takes, under a guard; one whose
    condition depends on values is refused.
    """
    lowering = _Lowering(model, example)
    lowering.graph(model.proto.graph)
    return lowering.program


class _Lowering:
    def __init__(self, model: Model, example: Mapping[str, np.ndarray]) -> None:
        self.opset = opset(model.proto)
        self.program = Program()
        self.fused, self.skipped = fake_quantizers(model.proto.graph)
        self.shapes: set[str] = set()  # names whose values follow from shapes and constants alone
        branches = any(standard(node, "If") for node in model.proto.graph.node)
        # Only a graph with branches is run while it is lowered.
        self.values: dict[str, Any] | None = (
            {name: torch.from_numpy(np.array(value)) for name, value in example.items()} if branches else None
        )
        for name, kind in infer(model.proto).items():
            if kind.dtype == onnx.TensorProto.STRING:
                raise InputError(f"tensor {name!r} holds text, which cannot be trained")

    def graph(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            self._constant(tensor.name, numpy_helper.to_array(tensor))
        if graph.sparse_initializer:
            raise InputError("sparse initializers cannot be trained; convert them to dense ones")
        for node in graph.node:
            self._node(node)

    def _node(self, node: onnx.NodeProto) -> None:
        if self._stored(node):
            return
        if any(name in self.skipped for name in node.output):
            self.program.nodes.append(node)
            return
        if standard(node, "If"):
            self._branch(node)
            return
        self.program.nodes.append(node)
        if standard(node, "Shape", "Size") or all(name in self.shapes for name in node.input if name):
            self.shapes.update(node.output)
        self._emit(self._step(node))

    def _step(self, node: onnx.NodeProto) -> Step:
        fused = self.fused.get(node.output[0])
        outputs = tuple(node.output)
        if fused is not None:
            function = partial(fake_quantize, axis=fused.axis, bounds=fused.bounds)
            return Step("FakeQuantize", function, fused.inputs, outputs)
        function = ops.lower(node, self.opset)
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        return Step(node.op_type, function, tuple(inputs), outputs, node.op_type in ops.STATEFUL)

    def _emit(self, step: Step) -> None:
        self.program.steps.append(step)
        if self.values is not None:
            with torch.no_grad():
                execute(step, self.values)

    def _constant(self, name: str, value: np.ndarray) -> None:
        if value.dtype.kind not in "fiub":  # small and brain floats, 4-bit integers: ml_dtypes
            value = value.astype(np.float32 if "float" in value.dtype.name else np.int8)
        self.program.constants[name] = value
        self.shapes.add(name)
        if self.values is not None:
            self.values[name] = tensor(value)

    def _stored(self, node: onnx.NodeProto) -> bool:
        if not standard(node, "Constant") or node.attribute[0].name not in CONSTANT_FIELDS:
            return False
        given = node.attribute[0]
        if given.name == "value":
            value = numpy_helper.to_array(given.t)
        else:
            dtype = np.float32 if "float" in given.name else np.int64
            value = np.array(helper.get_attribute_value(given), dtype)
        self._constant(node.output[0], value)
        return True

    def _branch(self, node: onnx.NodeProto) -> None:
        name, condition = node.name or node.output[0], node.input[0]
        if condition not in self.shapes or self.values is None:
            raise InputError(f"the branch If {name!r} depends on the data, so that it cannot be trained")
        taken = bool(self.values[condition].item())
        self.program.guards.append(f"If {name!r} takes its {'then' if taken else 'else'} branch")
        self._emit(Step("Guard", partial(_guard, expected=taken, name=name), (condition,), ()))
        branch = attribute(node, "then_branch" if taken else "else_branch")
        self.graph(branch)
        for inner, outer in zip(branch.output, node.output, strict=True):
            if inner.name in self.shapes:
                self.shapes.add(outer)
            self._emit(Step("Identity", _same, (inner.name,), (outer,)))


def _same(x: Tensor) -> Tensor:
    return x


def _guard(condition: Tensor, *, expected: bool, name: str) -> tuple[()]:
    if bool(condition.item()) != expected:
        raise InputError(f"this input takes another branch of If {name!r} than the example did")
    return ()


def tensor(value: np.ndarray) -> Tensor:
    """Return a torch tensor with its own memory."""
    return torch.from_numpy(np.array(value, order="C"))


def execute(step: Step, values: dict[str, Any], **state: bool) -> None:
    """Run one step over named values, and store what it makes."""
    inputs = [values[name] if name else None for name in step.inputs]
    found = step.function(*inputs, **(state if step.stateful else {}))
    results = found if isinstance(found, tuple) else (found,)
    values.update({n: r for n, r in zip(step.outputs, results, strict=False) if n})
