"""An ONNX graph as a torch module to be exported: quantizers as the operators that torch's own back ends recognize."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from ...graph import run
from ...model import Model
from ...training.lowering import execute, lower, tensor
from .linear import linears
from .quantizers import ZEROS, quantizers

TRACES = (
    "stack_trace",
    "from_node",
)  # where in this program a node came from: paths of this machine, and bulk


class ExportModule(nn.Module):
    """Computes what the graph computes, without gradients; inputs in the model's order, outputs as a tuple.

    Floats and stored integers are buffers; what gives shapes stays outside of the graph that torch will see. Raises
    InputError for an operator that is not covered, and for scales that are not constants.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._inputs = [spec.name for spec in model.inputs]
        self._results = [spec.name for spec in model.outputs]
        program = lower(model, run.sample(model))
        linears(program)
        self._steps = quantizers(program)
        read = {name for step in self._steps for name in step.inputs} | set(self._results)
        self._stored: dict[str, str] = {}
        self._known: dict[str, Tensor] = {}
        for name, value in program.constants.items():
            if name not in read:
                continue
            if value.ndim and (value.dtype.kind == "f" or value.dtype.itemsize == 1 or name.endswith(ZEROS)):
                self._stored[name] = f"constant{len(self._stored)}"
                self.register_buffer(self._stored[name], tensor(value))
            else:
                self._known[name] = tensor(value)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return every output."""
        values: dict[str, Any] = {**self._known, **dict(zip(self._inputs, inputs, strict=True))}
        values.update({name: getattr(self, attribute) for name, attribute in self._stored.items()})
        for step in self._steps:
            execute(step, values)
        return tuple(values[name] for name in self._results)


def export(model: Model) -> torch.export.ExportedProgram:
    """Return the exported program of a model whose every shape is known; raises InputError."""
    module = ExportModule(model).eval()
    example = tuple(tensor(value) for value in run.sample(model).values())
    with torch.no_grad():
        program = torch.export.export(module, example, strict=False)
    graph = program.graph
    graph.eliminate_dead_code()  # what was left of shapes
    for node in list(graph.nodes):
        for key in TRACES:
            node.meta.pop(key, None)
        if node.op == "call_function" and "dequantize" in str(node.target):
            _one_each(graph, node)
    program.graph_module.recompile()
    return program


def _one_each(graph: Graph, node: Node) -> None:
    """Give every reader of a dequantized tensor a copy of the node: back ends match Q/DQ patterns one by one."""
    for reader in list(node.users)[1:]:
        with graph.inserting_after(node):
            copy = graph.node_copy(node)
        reader.replace_input_with(node, copy)
