"""Which constants of a graph are weights that may become sparse, and why others stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_contracts.errors import InputError, UsageError

from ..graph.edit import attribute, standard
from ..model import Model, subgraphs
from . import view
from .view import View

# Operators with weights, and the inputs that hold them; biases and norms are never touched.
WEIGHTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1, 0),
    "MatMul": (1, 0),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "Gather": (0,),
}
TABLES = ("Gather",)
CARRIERS = ("Identity", "Transpose")  # what may stand between a constant and its layer
EXCLUDED = "excluded by an option"
QUANTIZED = "its weights are stored as integers: make the float model sparse, and quantize that"
TABLE = "a table of rows that are looked up"
SHARED = "{other} reads the same weights in another way"
COMPUTED = "the graph computes its weights from other constants: the pass clean makes constants of them"
FEW = "its weights are a single row of numbers"


@dataclass(frozen=True, eq=False)
class Layer:
    """One constant of weights: its name, the operator that reads it first, at which input, and the view of it.

    `label` is the operator's name, or that of what it makes. `inner` says that it is inside of control flow, where its
    inputs cannot be observed. `value` is the constant as stored.
    """

    weight: str
    label: str
    node: onnx.NodeProto
    slot: int
    view: View
    value: np.ndarray
    inner: bool = False

    @property
    def op(self) -> str:
        """The operator's type."""
        return self.node.op_type

    def cube(self) -> np.ndarray:
        """Return the weights [outputs, inputs, kernel] as float32."""
        return self.view.cube(self.value).astype(np.float32)


@dataclass(frozen=True)
class Left:
    """An operator with weights that stay dense, and why."""

    label: str
    op: str
    reason: str


@dataclass
class Found:
    """The layers of a model by the name of their weights, in the order of their first use, and what was left out."""

    layers: dict[str, Layer] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def leave(self, weight: str, reason: str) -> None:
        """Take a layer out."""
        layer = self.layers.pop(weight)
        self.add(Left(layer.label, layer.op, reason))

    def add(self, left: Left) -> None:
        """Note what is left out, once."""
        if left not in self.left:
            self.left.append(left)


@dataclass(frozen=True)
class _Scope:
    """What a node can see: constants and makers of its graph and of those around it."""

    constants: Mapping[str, onnx.TensorProto]
    makers: Mapping[str, onnx.NodeProto]
    inner: bool

    def constant(self, name: str) -> np.ndarray | None:
        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)


def find(model: Model, *, exclude: Collection[str] = (), tables: bool = False) -> Found:
    """Return the layers whose weights are float constants, and the others with the reason.

    `exclude` names operators, the tensors that they make, or constants; `tables` takes embeddings (Gather) too.
    Raises UsageError for a name that the model does not hold, InputError for weights that are not finite.
    """
    found, seen = Found(), set()
    readers: dict[str, list[tuple[str, View | None]]] = {}
    for node, scope in _walk(model.proto.graph, _Scope({}, {}, inner=False)):
        seen.update((node.name, *node.input, *node.output))
        for slot in WEIGHTS.get(node.op_type, ()) if standard(node, *WEIGHTS) else ():
            _consider(found, node, slot, scope, frozenset(exclude), tables=tables)
        for slot, name in enumerate(node.input):
            source, turned = _carried(name, scope)
            if source in scope.constants and not standard(node, *CARRIERS):
                weighs = standard(node, *WEIGHTS) and slot in WEIGHTS[node.op_type]
                shape = tuple(scope.constants[source].dims)
                read = view_of(node, slot, shape, turned) if weighs and len(shape) > 1 else None
                readers.setdefault(source, []).append((_label(node), read))
    unknown = [name for name in exclude if name not in seen]
    if unknown:
        raise UsageError(f"the model has no layer called {unknown[0]!r}; names are those of its operators")
    for weight, layer in list(found.layers.items()):
        others = [label for label, read in readers[weight] if read != layer.view]
        if others:
            found.leave(weight, SHARED.format(other=others[0]))
    return found


def _consider(
    found: Found,
    node: onnx.NodeProto,
    slot: int,
    scope: _Scope,
    exclude: frozenset[str],
    *,
    tables: bool,
) -> None:
    name, turned = _carried(node.input[slot] if slot < len(node.input) else "", scope)
    label, reason = _label(node), None
    value = scope.constant(name)
    if value is None:
        why = _hidden(name, scope)
        if why is not None:
            found.add(Left(label, node.op_type, why))
        return
    if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
        return
    if exclude & {node.name, *node.output, name}:
        reason = EXCLUDED
    elif standard(node, *TABLES) and not tables:
        reason = TABLE
    elif value.ndim < 2:
        reason = FEW
    elif name in found.layers:
        return  # tied weights are one layer
    if reason is not None:
        found.layers.pop(name, None)
        found.add(Left(label, node.op_type, reason))
        return
    if not np.isfinite(value).all():
        raise InputError(f"the weights {name!r} hold values that are not finite; the model is damaged")
    made = view_of(node, slot, value.shape, turned)
    found.layers[name] = Layer(name, label, node, slot, made, value, scope.inner)


def view_of(node: onnx.NodeProto, slot: int, shape: tuple[int, ...], turned: tuple[int, ...] = ()) -> View:
    """Return how an operator reads the weights at one of its inputs."""
    if standard(node, "Conv"):
        return view.convolution(shape, attribute(node, "group", 1))
    if standard(node, "ConvTranspose"):
        return view.transposed_convolution(shape, attribute(node, "group", 1))
    if standard(node, "MatMul", "Gemm"):
        flag = bool(attribute(node, "transB" if slot else "transA", 0))
        inputs_last = flag if slot else not flag
        return view.rows(shape, turned) if inputs_last else view.columns(shape, turned)
    return view.rows(shape, turned)


def _carried(name: str, scope: _Scope) -> tuple[str, tuple[int, ...]]:
    """Follow a name back through Identity and Transpose; returns the constant's name and the permutation."""
    turned: tuple[int, ...] = ()
    maker = scope.makers.get(name)
    while maker is not None and standard(maker, *CARRIERS):
        if standard(maker, "Transpose"):
            order = tuple(attribute(maker, "perm", ()))
            if turned or not order:
                break
            turned = order
        name = maker.input[0]
        maker = scope.makers.get(name)
    return name, turned


def _hidden(name: str, scope: _Scope) -> str | None:
    """Return why weights that are no constant themselves are not seen; None for what is computed from inputs."""
    maker = scope.makers.get(name)
    if maker is None:
        return None
    if standard(maker, "DequantizeLinear") and maker.input[0] in scope.constants:
        return QUANTIZED
    return COMPUTED if _computed(name, scope) else None


def _computed(name: str, scope: _Scope) -> bool:
    """Say whether a tensor follows from constants alone."""
    pending, seen = [name], set()
    while pending:
        maker = scope.makers.get(current := pending.pop())
        if current in scope.constants or current in seen or not current:
            continue
        if maker is None or standard(maker, "QuantizeLinear", "DequantizeLinear"):
            return False
        seen.add(current)
        pending.extend(maker.input)
    return True


def _label(node: onnx.NodeProto) -> str:
    return node.name or next((name for name in node.output if name), node.op_type)


def _walk(graph: onnx.GraphProto, outer: _Scope) -> Iterator[tuple[onnx.NodeProto, _Scope]]:
    constants = {**outer.constants, **{tensor.name: tensor for tensor in graph.initializer}}
    makers = dict(outer.makers)
    for node in graph.node:
        field = next((a for a in node.attribute if a.name == "value"), None)
        if standard(node, "Constant") and field is not None:
            constants[node.output[0]] = field.t
        else:
            makers.update(dict.fromkeys(filter(None, node.output), node))
    scope = _Scope(constants, makers, outer.inner)
    for node in graph.node:
        yield node, scope
        for part in subgraphs(node):
            yield from _walk(part, _Scope(constants, makers, inner=True))
