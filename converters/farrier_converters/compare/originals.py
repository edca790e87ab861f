"""Find the float weights that stored ones came from: in the model as it came, or cleaned and fused."""

from __future__ import annotations

import numpy as np
import onnx

from farrier_contracts.errors import FarrierError

from .. import passes
from ..graph.compact.names import BEFORE
from ..graph.edit import Graph, attribute, standard
from ..model import Model
from ..quantize.repair import evening
from .pairs import ACTIVATIONS
from .quantizers import ConstantQuantizer

SUFFIXES = ("_quantized", "_q", "_int8")


def channel_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a node's weights along which its results are independent."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1 if node.op_type == "Gemm" else -1


class Originals:
    """The constants of a float model by the nodes and names that others keep."""

    def __init__(self, a: Model, b: Graph) -> None:
        self.graphs = [Graph(a)]
        fused = _fused(a)
        if fused is not None:
            self.graphs.insert(0, Graph(fused))
        self.b = b
        self.nodes = [{(n.op_type, n.name): n for n in g.nodes if n.name} for g in self.graphs]

    def weight(self, node: onnx.NodeProto, stored: ConstantQuantizer) -> np.ndarray | None:
        """Return the float weights (same shape) that are nearest to what a node of B has stored."""
        found = self._candidates(node, 1, stored)
        values = stored.values
        return min(found, key=lambda v: float(np.square(v - values).sum()), default=None)

    def bias(self, node: onnx.NodeProto, stored: ConstantQuantizer) -> np.ndarray | None:
        """Return the float bias, flat, that a node of B has stored."""
        found = [v.reshape(-1) for v in self._candidates(node, 2, stored)]
        values = stored.values.reshape(-1)
        return min(found, key=lambda v: float(np.square(v - values).sum()), default=None)

    def _candidates(self, node: onnx.NodeProto, position: int, stored: ConstantQuantizer) -> list[np.ndarray]:
        names = [stored.name, *(stored.name.removesuffix(s) for s in SUFFIXES if stored.name.endswith(s))]
        found: list[np.ndarray] = []
        for graph, nodes in zip(self.graphs, self.nodes, strict=True):
            twin = nodes.get((node.op_type, node.name)) or _same_result(graph, node)
            own = [twin.input[position]] if twin is not None and len(twin.input) > position else []
            values = (graph.constant(name) for name in (*own, *names) if name)
            floats = (self._even(v, node, position) for v in values if v is not None and v.dtype.kind == "f")
            fitted = (_widened(v, stored.integers.shape) for v in floats)
            found += [v for v in fitted if v is not None]
        return found

    def _even(self, value: np.ndarray, node: onnx.NodeProto, position: int) -> np.ndarray:
        """Return weights (position 1) or a bias in the sizes that B's channels have before and behind the node."""
        before = evening.divisor(self.b, node.input[0]) if position == 1 else None
        behind = evening.divisor(self.b, node.output[0])
        axis = channel_axis(node) if position == 1 else 0
        for divisor, sign in ((before, 1), (behind, -1)):
            if divisor is not None and len(divisor) == value.shape[axis]:
                shape = [-1 if a == axis else 1 for a in range(value.ndim)]
                value = (value * divisor.reshape(shape) ** sign).astype(value.dtype)
        return value


def _same_result(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the node of a float graph that makes the tensor which an unnamed node of B makes, or the Relu behind."""
    maker = graph.producer.get(node.output[0].removesuffix(BEFORE))
    if maker is not None and standard(maker, *ACTIVATIONS):
        maker = graph.producer.get(maker.input[0])
    return maker if maker is not None and maker.op_type == node.op_type else None


def _widened(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a constant with zeros behind it up to a shape, as channels of zeros are added; None where it is larger."""
    if value.ndim != len(shape) or any(
        have > wanted for have, wanted in zip(value.shape, shape, strict=True)
    ):
        return None
    return np.pad(value, [(0, wanted - have) for have, wanted in zip(value.shape, shape, strict=True)])


def _fused(a: Model) -> Model | None:
    try:
        for name in ("clean", "fuse"):
            step = passes.get(name)
            a = step.run(a, step.options(), passes.Context())
    except FarrierError:
        return None
    return a
