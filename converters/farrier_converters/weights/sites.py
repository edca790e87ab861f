"""Where a graph keeps its weights: which constants are worth few bits, and how each is read as a matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ..graph.edit import Graph, attribute, standard
from ..model import subgraphs
from ..quantize.reasons import set_reason

FLOAT = onnx.TensorProto.FLOAT
# Operators whose constants are weights, and at which inputs; anything else holds tables too small to matter.
WEIGHTS = {
    "MatMul": (1, 0),
    "Gemm": (1, 0),
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
LINEAR, TABLE, CONV, OTHER = "linear", "table", "conv", "other"
SMALLEST_BLOCK = 16  # of ONNX Runtime's kernels
EXCLUDED = "excluded by an option"
FEW = "its {count} weights are too few to pay for scales"
NARROW = "its rows of {count} numbers are too short for blocks"
POSITIONS = "a table of sines or cosines, not of weights"
CONTROL = "the weights inside of control flow stay in float"


@dataclass(frozen=True, eq=False)
class Site:
    """One use of a constant as weights.

    `kind`: a linear layer [.., columns] x [columns, rows], a table of rows that Gather picks from, a convolution of one
    group [rows, columns...], or any other operator, whose weights only widen again when the engine loads them.
    """

    node: onnx.NodeProto
    position: int
    weight: str
    kind: str
    rows_last: bool = False  # a linear layer whose constant is [columns, rows]

    @property
    def source(self) -> str:
        """The tensor that the weights are multiplied with."""
        return self.node.input[0]


@dataclass(eq=False)
class Bank:
    """One matrix of weights [rows, columns] and all its uses, so that shared weights are stored once."""

    shape: tuple[int, int]
    sites: list[Site] = field(default_factory=list)

    @property
    def kinds(self) -> set[str]:
        """The kinds of its uses."""
        return {site.kind for site in self.sites}

    def matrix(self, graph: Graph) -> np.ndarray:
        """Read the matrix, float32 [rows, columns]; raises InputError for values that are not finite."""
        return matrix_of(graph, self.sites[0])


def matrix_of(graph: Graph, site: Site) -> np.ndarray:
    """Return a site's weights as rows that are dotted with its inputs."""
    value = graph.constant(site.weight)
    if value is None or not np.isfinite(value).all():
        raise InputError(f"the weights {site.weight!r} hold values that are not finite; the model is damaged")
    if site.kind == LINEAR:
        return np.ascontiguousarray(value.T) if site.rows_last else value
    return value.reshape(_rows(value.shape, site.node), -1)


def restored(matrix: np.ndarray, site: Site, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `matrix_of`: the constant of a site whose matrix is this one."""
    if site.kind == LINEAR:
        return np.ascontiguousarray(matrix.T) if site.rows_last else matrix
    return matrix.reshape(shape)


def _rows(shape: tuple[int, ...], node: onnx.NodeProto) -> int:
    """Convolutions and tables keep a row per first index; everything else a row per vector of its last axis."""
    if standard(node, "Conv", "ConvTranspose", "Gather"):
        return shape[0]
    return int(np.prod(shape[:-1]))


def find(graph: Graph, *, exclude: frozenset[str], min_elements: int, tables: bool = True) -> list[Bank]:
    """Return the graph's weights, in the order of their first use; nodes left out say why.

    Gemm of a constant becomes MatMul and Add on the way: engines know blockwise weights for MatMul alone.
    """
    sites = []
    for node in list(graph.nodes):
        if any(True for _ in subgraphs(node)):
            set_reason(node, CONTROL)
            continue
        if not standard(node, *WEIGHTS):
            continue
        if exclude.intersection((node.name, node.output[0])) or (not tables and standard(node, "Gather")):
            set_reason(node, EXCLUDED)
            continue
        sites.extend(_sites(graph, node, min_elements))
    graph.index()
    banks: dict[str, Bank] = {}
    for site in sites:
        matrix = matrix_of(graph, site)
        digest = hashlib.sha256(np.ascontiguousarray(matrix).tobytes()).hexdigest()
        # what a kernel reads and what widens at load are stored differently
        form = (
            "rows"
            if site.kind == LINEAR or (site.kind == TABLE and whole_blocks(matrix.shape[1]))
            else "wide"
        )
        key = f"{matrix.shape}{digest}{form}"
        banks.setdefault(key, Bank((matrix.shape[0], matrix.shape[1]))).sites.append(site)
    return list(banks.values())


def whole_blocks(columns: int) -> bool:
    """Say whether rows fall into whole blocks, which Gather's kernel wants."""
    return columns % SMALLEST_BLOCK == 0


def _sites(graph: Graph, node: onnx.NodeProto, min_elements: int) -> Iterator[Site]:
    for position in WEIGHTS[node.op_type]:
        name = node.input[position] if position < len(node.input) else ""
        name, turned = _behind_transpose(graph, node, position, name)
        tensor = graph.initializers.get(name)
        if tensor is None or tensor.data_type != FLOAT or len(tensor.dims) < 2:
            continue
        reason = _obstacle(graph, node, name, min_elements)
        if reason is not None:
            set_reason(node, reason)
            continue
        yield _site(graph, node, position, name, turned)


def _obstacle(graph: Graph, node: onnx.NodeProto, name: str, min_elements: int) -> str | None:
    dims = graph.initializers[name].dims
    count = int(np.prod(dims))
    if count < min_elements:
        return FEW.format(count=count)
    if not standard(node, "Gather"):
        return None
    if count // dims[0] < SMALLEST_BLOCK:
        return NARROW.format(count=count // dims[0])
    value = graph.constant(name)
    return POSITIONS if value is not None and _computed_positions(value) else None


def _computed_positions(table: np.ndarray) -> bool:
    """Sines and cosines have zeros and ones at place 0, and nothing beyond 1."""
    return bool(np.isin(table[0], (0, 1)).all() and table.any() and np.abs(table).max() <= 1)


def _behind_transpose(graph: Graph, node: onnx.NodeProto, position: int, name: str) -> tuple[str, bool]:
    """Weights tied to an embedding come as MatMul of a transposed constant: look through it."""
    maker = graph.producer.get(name)
    if position == 1 and standard(node, "MatMul") and maker is not None and standard(maker, "Transpose"):
        tensor = graph.initializers.get(maker.input[0])
        if tensor is not None and len(tensor.dims) == 2 and list(attribute(maker, "perm", [1, 0])) == [1, 0]:
            return maker.input[0], True
    return name, False


def _site(graph: Graph, node: onnx.NodeProto, position: int, name: str, turned: bool) -> Site:
    dims = graph.initializers[name].dims
    if standard(node, "MatMul") and position == 1 and len(dims) == 2:
        return Site(node, position, name, LINEAR, rows_last=not turned)
    if standard(node, "Gemm") and position == 1 and not attribute(node, "transA", 0):
        return _gemm_site(graph, node, name)
    if standard(node, "Gather") and len(dims) == 2 and attribute(node, "axis", 0) == 0:
        return Site(node, position, name, TABLE)
    if standard(node, "Conv") and attribute(node, "group", 1) == 1 and len(dims) == 4:
        return Site(node, position, name, CONV)
    return Site(node, position, name, OTHER)


def _gemm_site(graph: Graph, node: onnx.NodeProto, name: str) -> Site:
    """Turn Gemm into MatMul and Add."""
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    turned = bool(attribute(node, "transB", 0))
    if alpha != 1.0:
        value = graph.constant(name)
        assert value is not None
        name = graph.add_constant(f"{name}_scaled", value * np.float32(alpha))
    addend = node.input[2] if len(node.input) > 2 else ""
    result = node.output[0]
    del node.attribute[:]
    del node.input[1:]
    node.op_type = "MatMul"
    operand = name
    if turned:
        operand = graph.fresh(f"{name}_turned")
        graph.add_node("Transpose", [name], operand, perm=[1, 0])
    node.input.append(operand)
    if addend:
        product = graph.fresh(f"{result}_product")
        node.output[0] = product
        if beta != 1.0:
            factor = graph.add_constant("beta", np.array(beta, np.float32))
            scaled = graph.fresh(f"{addend}_scaled")
            graph.add_node("Mul", [addend, factor], scaled)
            addend = scaled
        graph.add_node("Add", [product, addend], result)
    return Site(node, 1, name, LINEAR, rows_last=not turned)
