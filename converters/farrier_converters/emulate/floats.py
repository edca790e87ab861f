"""One node in ONNX Runtime: what an emulated graph computes in float, and the kernels that sum integers exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import onnx
from onnx import helper

from farrier_contracts.errors import InputError

from ..graph import run


class NodeRunner:
    """A node with its constants; a session is opened for each combination of input types that it meets."""

    def __init__(
        self,
        node: onnx.NodeProto,
        constants: dict[str, onnx.TensorProto],
        opsets: Sequence[onnx.OperatorSetIdProto],
        needs: Sequence[str],
    ) -> None:
        self._node, self._opsets = node, opsets
        self._constants = [constants[name] for name in needs if name in constants]
        self.inputs = [name for name in needs if name not in constants]
        self.outputs = [name for name in node.output if name]
        self._sessions: dict[tuple[str, ...], object] = {}

    def __call__(self, *values: np.ndarray) -> list[np.ndarray]:
        """Return the outputs that have names; raises InputError where ONNX Runtime refuses."""
        kinds = tuple(str(value.dtype) for value in values)
        try:
            if kinds not in self._sessions:
                self._sessions[kinds] = run.session(self._proto(values))
            feeds = dict(zip(self.inputs, values, strict=True))
            return list(self._sessions[kinds].run(None, feeds))  # type: ignore[attr-defined]
        except run.runtime_errors() as error:
            name = self._node.name or self._node.op_type
            raise InputError(f"the node {name!r} cannot be emulated: {run.brief(error)}") from None

    def _proto(self, values: Sequence[np.ndarray]) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
            for name, value in zip(self.inputs, values, strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph([self._node], "node", inputs, outputs, initializer=self._constants)
        return helper.make_model(graph, opset_imports=list(self._opsets), ir_version=10)


def float_conv(node: onnx.NodeProto) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the bilinear convolution of values by weights in float32, with the attributes of a node and no bias."""
    plain = helper.make_node("Conv", ["x", "w"], ["y"])
    plain.attribute.extend(sorted(node.attribute, key=lambda field: field.name))
    runner = _runner(plain.SerializeToString(deterministic=True))

    def convolved(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return runner(*(np.ascontiguousarray(v, np.float32) for v in (values, weights)))[0]

    return convolved


@lru_cache(maxsize=64)
def _runner(serialized: bytes) -> NodeRunner:
    """Open one session for all convolutions alike: their weights are inputs, for opening takes longer than packing."""
    node = onnx.NodeProto.FromString(serialized)
    return NodeRunner(node, {}, [helper.make_opsetid("", 17)], list(node.input))
