"""Placement for engines that want quantizers on the inputs of what multiplies, and fuse all between two of them.

So TensorRT does: nothing stands between a convolution, its bias, its activation and the addition of a residual block,
whose other operand gets a quantizer instead. Averages and additions compute in integers where their results stay
integers; what only moves values lets the quantizer pass, so that it gets none of its own, and tensors that meet there
share one scale. Source: NVIDIA, "TensorRT Developer Guide", "Processing of Q/DQ Networks" and "Q/DQ Layer-Placement
Recommendations".
"""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, standard
from ...graph.types import TensorType, infer
from .. import rules
from . import obstacles
from .plan import Placement
from .results import is_done

LINEAR = rules.WEIGHTED
ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")  # fused into what is before them
# A quantizer moves up through these and a dequantizer down; also through Pad with zeros, integers in every scale.
MOVERS = (
    "MaxPool",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Split",
    "Concat",
    "Gather",
    "DepthToSpace",
    "SpaceToDepth",
    "Identity",
)
AVERAGES = ("AveragePool", "GlobalAveragePool")


def place(
    graph: Graph,
    *,
    exclude: frozenset[str] = frozenset(),
    stem: bool = True,
    slower: frozenset[str] = frozenset(),
) -> Placement:
    """Plan the quantization of a graph; the options are those of `results.place`."""
    return _Planner(graph, exclude | slower, stem=stem).run()


class _Planner:
    def __init__(self, graph: Graph, exclude: frozenset[str], *, stem: bool) -> None:
        self.graph = graph
        self.types: dict[str, TensorType] = infer(graph.without_weights())
        self.plan = Placement()
        self.exclude = exclude
        self.stem = stem
        self.taken: dict[int, list[str]] = {}  # by node: what it reads in integers
        self.ending: set[int] = set()  # nodes whose results become integers before anything reads them
        self.touching: set[int] = set()  # nodes whose results become integers for some reader at least

    def run(self) -> Placement:
        plan = self.plan
        done = {id(node) for node in self.graph.nodes if is_done(self.graph, node)}
        nodes = [node for node in self.graph.nodes if id(node) not in done]
        for node in nodes:
            if standard(node, *LINEAR) and self._linear_obstacle(node) is None:
                reads = node.input[:2] if node.op_type == "MatMul" else node.input[:1]
                self.taken[id(node)] = [name for name in reads if self.graph.constant(name) is None]
        for node in reversed(nodes):  # readers before makers
            self._look_back(node)
        for node in nodes:
            if id(node) in self.taken:
                plan.integer.add(id(node))
                self._read(self.taken[id(node)])
            elif self._fused(node) or (self._moves(node) and id(node) in self.ending):
                plan.absorbed.add(id(node))
            else:
                plan.reasons[id(node)] = self._reason(node)
        self._share_scales()
        return plan

    def _look_back(self, node: onnx.NodeProto) -> None:
        """Note whether a node's results become integers, and what it then reads in integers itself.

        An average or a sum computes in integers where its result is read in nothing else. The sum of a residual block
        is part of a convolution, whose result can be integers only if the other operand is: there one reader is enough.
        """
        results = [name for name in node.output if name]
        if any(self._takes(n, name, self.touching) for name in results for n in self._readers(name)):
            self.touching.add(id(node))
        if all(self._becomes_integer(name) for name in results):
            self.ending.add(id(node))
        if id(node) in self.taken or self._named(node):
            return
        operands: list[str] = []
        if standard(node, "Add"):
            summands = self._summands(node)
            operands = summands if id(node) in (self.touching if len(summands) == 1 else self.ending) else []
        elif standard(node, *AVERAGES) and id(node) in self.ending:
            operands = list(node.input[:1])
        if operands and all(obstacles.is_float(self.types, name) for name in operands):
            self.taken[id(node)] = operands

    def _becomes_integer(self, name: str) -> bool:
        readers = self._readers(name)
        kept = self.graph.kept(name)
        return bool(readers) and not kept and all(self._takes(n, name, self.ending) for n in readers)

    def _readers(self, name: str) -> list[onnx.NodeProto]:
        return self.graph.readers.get(name, [])

    def _takes(self, reader: onnx.NodeProto, name: str, passing: set[int]) -> bool:
        """Say whether a reader gets a tensor in integers: quantized for it, or further down, beyond nodes `passing`."""
        if name in self.taken.get(id(reader), ()):
            return True
        moves = standard(reader, *ACTIVATIONS) or self._moves(reader)
        return moves and id(reader) in passing and (reader.input[0] == name or standard(reader, "Concat"))

    def _moves(self, node: onnx.NodeProto) -> bool:
        if standard(node, "Pad") and attribute(node, "mode", b"constant") == b"constant":
            fill = (
                self.graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
            )
            return fill is not None and not fill.any()
        return standard(node, *MOVERS) and obstacles.carrier(self.graph, node) is None

    def _summands(self, node: onnx.NodeProto) -> list[str]:
        """Return the operands of an Add to quantize: all but one that a convolution makes for it alone."""
        names = list(node.input)
        shapes = [self.types[name].shape if name in self.types else None for name in names]
        constant = any(self.graph.constant(name) is not None for name in names)
        if constant or shapes[0] is None or shapes[0] != shapes[1]:
            return []
        main = next((name for name in names if self._convolves_for(name, node)), None)
        return [name for name in names if name != main]

    def _convolves_for(self, name: str, reader: onnx.NodeProto) -> bool:
        maker = self.graph.producer.get(name)
        integer = maker is not None and standard(maker, "Conv") and id(maker) in self.taken
        return integer and self.graph.only_reader(name) is reader

    def _fused(self, node: onnx.NodeProto) -> bool:
        """Say whether a node is the activation function of an integer operator before it."""
        if not standard(node, *ACTIVATIONS) or self._named(node):
            return False
        maker = self.graph.producer.get(node.input[0])
        return (
            maker is not None
            and id(maker) in self.taken
            and not standard(maker, *AVERAGES)
            and self.graph.only_reader(node.input[0]) is node
        )

    def _share_scales(self) -> None:
        """Give one scale to all points that come from one tensor, or meet in one, by moves alone."""
        for point in self.plan.read:
            waiting, seen = [point], {point}
            while waiting:
                name = waiting.pop()
                self.plan.join(name, point)
                maker = self.graph.producer.get(name)
                if maker is None or not self._moves(maker):
                    continue
                sources = maker.input if standard(maker, "Concat") else maker.input[:1]
                fresh = [n for n in sources if n not in seen and obstacles.is_float(self.types, n)]
                seen.update(fresh)
                waiting += fresh

    def _read(self, names: list[str]) -> None:
        for name in names:
            self.plan.read[name] = None
            maker = self.graph.producer.get(name)
            if maker is not None and maker.op_type in rules.BOUNDED:
                self.plan.bounds[name] = rules.BOUNDED[maker.op_type]

    def _linear_obstacle(self, node: onnx.NodeProto) -> str | None:
        named = rules.EXCLUDED if self._named(node) else None
        return named or obstacles.linear(self.graph, self.types, node, stem=self.stem)

    def _named(self, node: onnx.NodeProto) -> bool:
        return bool(self.exclude.intersection((node.name, node.output[0])))

    def _reason(self, node: onnx.NodeProto) -> str:
        if self._named(node):
            return rules.EXCLUDED
        if standard(node, *LINEAR):
            return self._linear_obstacle(node) or rules.NO_KERNEL.format(op=node.op_type)
        if standard(node, "Add", *AVERAGES, *ACTIVATIONS) or self._moves(node):
            if id(node) not in self.ending:
                return rules.RESULT_FLOAT
            return rules.OPERANDS if standard(node, "Add") else rules.NO_KERNEL.format(op=node.op_type)
        return rules.NO_KERNEL.format(op=node.op_type)
