"""The ONNX graph while it grows: which stored forms of each tensor exist, and making the missing ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...tflite import layout
from ...tflite.layout import BatchError, Order, Shape

LARGEST = (1 << 31) - 1  # as a value it stands for "no limit"
MAX_ELEMENTS = 1 << 31  # of any tensor, per row of the batch


Sides = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass
class Value:
    """One tensor of the file. `forms` maps an order to the ONNX tensor stored that way; the first is native.

    `shape` is in the file's order. `constant` is set for what does not depend on the inputs. The last five
    remember how an image (or a sequence: an image of height one) came about, for the operator that can use its source.
    """

    name: str
    shape: Shape
    dtype: str
    forms: dict[Order, str] = field(default_factory=dict)
    constant: np.ndarray | None = None
    origin: Value | None = None  # what it is but for axes of size 1
    flattened: Value | None = None
    padded: tuple[Value, Sides] | None = None
    blocked: tuple[Value, tuple[int, int], Sides] | None = None  # source, block (height, width), padding
    unblock: Callable[[Value, Sides], None] | None = None  # makes what is left when blocks are put together

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def native(self) -> Order:
        """The order that costs nothing."""
        return next(iter(self.forms), layout.identity(self.rank))


class Builder:
    """Collects nodes and initializers; names stay unique."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.notes: list[str] = []
        self.first_input = ""
        self.reserved: set[str] = set()
        self._names: set[str] = set()
        self._constants: dict[tuple[str, Shape, bytes], str] = {}

    def fresh(self, name: str) -> str:
        """Return `name`, or the first free name after it."""
        candidate, number = name or "tensor", 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def reserve(self, names: Iterable[str]) -> None:
        """Keep names for the outputs, as far as they are free."""
        self.reserved = set(names) - self._names
        self._names |= self.reserved

    def made(self) -> set[str]:
        """Return the names that nodes make."""
        return {name for node in self.nodes for name in node.output}

    def rename(self, names: dict[str, str]) -> None:
        """Give tensors that nodes make other names, everywhere."""
        for node in self.nodes:
            for held in (node.input, node.output):
                held[:] = [names.get(name, name) for name in held]

    def constant(self, name: str, value: np.ndarray | np.generic) -> str:
        """Store an initializer; equal ones are stored once."""
        value = np.asarray(value, order="C")
        if value.dtype.kind in "iu" and value.size and int(value.max(initial=0)) >= layout.BATCH:
            raise BatchError("the number of rows is used as a value")
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = self.fresh(name)
            self.initializers[self._constants[key]] = numpy_helper.from_array(value, self._constants[key])
        return self._constants[key]

    def integers(self, name: str, values: Iterable[int]) -> str:
        """Store a list of int64."""
        return self.constant(name, np.array([int(v) for v in values], np.int64))

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output and return the name of that."""
        return self.nodes_of(op, inputs, [name], **attributes)[0]

    def nodes_of(self, op: str, inputs: Sequence[str], names: Sequence[str], **attributes: Any) -> list[str]:
        """Append a node with several outputs."""
        outputs = [self.fresh(name) for name in names]
        self.nodes.append(
            helper.make_node(op, list(inputs), outputs, name=f"{outputs[0]}/{op}", **attributes)
        )
        return outputs

    def get(self, value: Value, order: Order | None = None) -> str:
        """Return the ONNX tensor that holds `value` in this order (default: the file's), made where missing."""
        order = layout.identity(value.rank) if order is None else order
        if order not in value.forms:
            value.forms[order] = self._make(value, order)
        return value.forms[order]

    def _make(self, value: Value, order: Order) -> str:
        if value.constant is not None:
            array = value.constant.transpose(order).astype(value.dtype, copy=False)
            if array.dtype == np.float16:
                array = array.astype(np.float32)
            return self.constant(value.name, array)
        if not value.forms:
            raise ValueError(f"the tensor {value.name!r} is read before it is made")
        for held, name in value.forms.items():
            if layout.only_relabels(value.shape, held, order):
                return self.reshape(name, layout.permuted(value.shape, order), f"{value.name}/reshaped")
        held, name = next(iter(value.forms.items()))
        return self.node(
            "Transpose", [name], f"{value.name}/transposed", perm=list(layout.relative(held, order))
        )

    def reshape(self, name: str, shape: Sequence[int], result: str) -> str:
        """Reshape; at most one size may depend on the number of rows."""
        return self.node("Reshape", [name, self.integers("shape", layout.emitted(shape))], result)

    def put(
        self, value: Value, name: str, order: Order | None = None, shape: Sequence[int] | None = None
    ) -> None:
        """Say that `name` holds `value` in this order, and of which shape (in the file's order) it is."""
        if shape is not None:
            value.shape = checked(shape)
        value.forms = {layout.identity(value.rank) if order is None else order: name}

    def activation(self, kind: str, name: str, result: str) -> str:
        """Append a fused activation ("": none)."""
        if not kind:
            return name
        if kind == "RELU":
            return self.node("Relu", [name], result)
        low, high = {"RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1), "RELU_0_TO_1": (0, 1)}[kind]
        limits = [self.constant("limit", np.float32(limit)) for limit in (low, high)]
        return self.node("Clip", [name, *limits], result)


def checked(shape: Sequence[int]) -> Shape:
    """Return a shape of a possible size; raises ValueError."""
    result = tuple(int(s) for s in shape)
    elements = math.prod(s // layout.BATCH if layout.free(s) else s for s in result)
    if min(result, default=1) < 1 or elements > MAX_ELEMENTS:
        raise ValueError(f"a tensor of shape {list(result)} is not possible")
    return result
