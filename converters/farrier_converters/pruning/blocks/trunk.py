"""The trunk of a network: the tensors that everything on the way from its first weights to its outputs goes through.

They are the cut vertices of the data flow, found by one sweep in topological order. What depends on no weight is no
part of the flow: attention masks, positions, shapes and states come in from the side.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ...graph.edit import Graph, reads, standard

WHOLE = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
SHAPES = ("Shape", "Size")  # read how large a tensor is, not what it holds
WEIGHTED: dict[str, tuple[int, ...]] = {  # operator -> inputs that hold weights
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Einsum": (0, 1),
    "Gather": (0,),  # an embedding, by data
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
NORMS: dict[str, tuple[int, ...]] = {
    name: (1, 2)
    for name in (
        "BatchNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
    )
}


@dataclass(frozen=True, eq=False)
class Segment:
    """The nodes between two neighbouring points of the trunk. `heavy`: it holds a weight of two axes or more."""

    input: str
    output: str
    nodes: tuple[onnx.NodeProto, ...]
    heavy: bool

    @property
    def chain(self) -> bool:
        """Whether each node only reads the one before it: no branches, no shortcut."""
        made = [self.input, *(name for node in self.nodes for name in node.output)]
        return all(sum(name in node.input for node in self.nodes) <= 1 for name in made)


class Flow:
    """What flows through a graph: `still` tensors follow from constants and shapes, `active` ones from weights too."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order = graph.ordered()
        self.constants = set(graph.initializers)
        self.still = set(graph.initializers)
        self.active: set[str] = set()
        self.sources: set[int] = set()  # ids of nodes that start the flow
        self.nodes: list[onnx.NodeProto] = []  # those that are part of it
        for node in self.order:
            self._add(node)

    def weighted(self, node: onnx.NodeProto) -> bool:
        """Say whether a node holds a weight of two axes or more."""
        slots = WEIGHTED.get(node.op_type, ()) if standard(node, node.op_type) else ()
        names = [node.input[slot] for slot in slots if slot < len(node.input)]
        return any(name in self.constants and self._is_table(name) for name in names)

    def ends_in(self, node: onnx.NodeProto, inside: set[int]) -> bool:
        """Say whether all that comes of a still node (a shape) is read by nodes with these ids."""
        waiting, seen = [node], {id(node)}
        while waiting:
            for name in waiting.pop().output:
                if self.graph.kept(name):
                    return False
                for reader in self.graph.readers.get(name, []):
                    if self.active.isdisjoint(reader.output):
                        if id(reader) not in seen:
                            seen.add(id(reader))
                            waiting.append(reader)
                    elif id(reader) not in inside:
                        return False
        return True

    def _add(self, node: onnx.NodeProto) -> None:
        names = reads(node)
        if any(name in self.active for name in names) and not standard(node, *SHAPES):
            self._activate(node)
        elif standard(node, *SHAPES) or all(name in self.still for name in names):
            self.still.update(node.output)
            if names and all(name in self.constants for name in names):
                self.constants.update(node.output)
        elif self.weighted(node) or (
            node.op_type in NORMS and any(name in self.constants for name in node.input[1:3])
        ):
            self.sources.add(id(node))
            self._activate(node)

    def _activate(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        self.active.update(name for name in node.output if name)

    def _is_table(self, name: str) -> bool:
        tensor = self.graph.initializers.get(name)  # None: computed from constants
        return tensor is None or (len(tensor.dims) > 1 and tensor.data_type not in WHOLE)


def segments(flow: Flow) -> list[Segment]:
    """Return the stretches between the points of the trunk, in order; none where there is no such point."""
    readers = {name: 0 for name in flow.active}
    for node in flow.nodes:
        for name in reads(node) & flow.active:
            readers[name] += 1
    outputs = set(flow.graph.outputs)
    sources, live = len(flow.sources), set()
    found: list[Segment] = []
    last: str | None = None
    between: list[onnx.NodeProto] = []
    for node in flow.nodes:
        between.append(node)
        sources -= id(node) in flow.sources
        for name in reads(node) & flow.active:
            readers[name] -= 1
            if not readers[name] and name not in outputs:
                live.discard(name)
        live.update(name for name in node.output if name and (readers[name] or name in outputs))
        if len(live) == 1 and not sources:
            point = next(iter(live))
            if last is not None and point != last:
                heavy = any(flow.weighted(inner) for inner in between)
                found.append(Segment(last, point, tuple(between), heavy))
            last, between = point, []
    return found
