"""The file while it grows: tensors, operators, and in which orders of axes each ONNX tensor is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...tflite import layout, schema
from ...tflite.file import Operator, Signature, Tensor, TfliteFile
from ...tflite.layout import Order, Shape
from .errors import Code, UnsupportedError
from .limits import checked, refuse_rows
from .quanta import FIXED, SAME, Quanta
from .values import Held, Value

__all__ = ["Builder", "Held", "Value"]

LEAST, MOST = -(1 << 31), (1 << 31) - 1  # of the numbers that options hold
HALF_ELEMENTS = 64  # float16 constants from this size on stay float16 in the file
DTYPES = ("float32", "int32", "int64", "bool", "int8", "uint8", "int16")
FUSING = {  # operators whose kernels, of every runtime, take an activation into their output
    *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV"),
    *("MAX_POOL_2D", "AVERAGE_POOL_2D"),
}
FOLDED = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply}  # done here where both operands are constant
ACTIVATIONS = {name: number for number, name in schema.ACTIVATIONS.items()}


@dataclass
class _Record:
    """An operator whose options may still change."""

    name: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, Any]


class Builder:
    """Collects tensors and operators; equal constants are stored once, and names stay unique.

    With `integers_only`, the file is for an accelerator that has no floats, else for a processor that has.
    """

    def __init__(self, *, integers_only: bool = False) -> None:
        self.integers_only = integers_only
        self.scope = "tensor"  # what tensors are called after
        self.target: Quanta | None = None  # of what integer operators make, where their kernels can choose
        self._tensors: list[Tensor] = []
        self._operators: list[_Record] = []
        self._maker: dict[int, _Record] = {}
        self._constants: dict[tuple[str, Shape, bytes, Quanta | None], Held] = {}
        self._names: set[str] = set()
        self._reads: Counter[int] = Counter()  # how often operators read each tensor

    # tensors

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        data: np.ndarray | None = None,
        quanta: Quanta | None = None,
    ) -> Held:
        """Add a tensor; raises BatchError where two rows would be mixed, UnsupportedError for what no kernel takes."""
        if dtype not in DTYPES and data is None:
            raise UnsupportedError(Code.DTYPE, f"its element type is {dtype}")
        sizes = checked(shape)
        rows = tuple(size // layout.BATCH if layout.free(size) else size for size in sizes)
        signature = tuple(-1 if layout.free(size) else size for size in sizes)
        index = len(self._tensors)
        scales, zeros, axis = (
            ((), (), 0) if quanta is None else (quanta.scales, quanta.zero_points, quanta.axis)
        )
        known = np.array(scales, np.float32), np.array(zeros, np.int64), axis
        self._tensors.append(
            Tensor(index, self.fresh(name), dtype, rows, signature, data, *known, False, False)
        )
        return Held(index, sizes, dtype, quanta)

    def fresh(self, name: str) -> str:
        """Return `name`, or the first free name after it."""
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def constant(
        self,
        value: np.ndarray | np.generic | float,
        dtype: str | None = None,
        quanta: Quanta | None = None,
    ) -> Held:
        """Store a constant; a large one of float16 is stored as such, and widened when the file is opened."""
        array = np.asarray(value, dtype, order="C")
        if array.dtype == np.float16 and array.size < HALF_ELEMENTS:
            array = array.astype(np.float32)
        refuse_rows(array, counts=quanta is None and (array.dtype.kind in "iu" or array.size == 1))
        key = (array.dtype.name, array.shape, array.tobytes(), quanta)
        if key not in self._constants:
            held = self.tensor(f"{self.scope}/constant", array.shape, array.dtype.name, array, quanta)
            if array.dtype == np.float16:
                held = self.op("DEQUANTIZE", [held], array.shape, "float32")
            self._constants[key] = held
        return self._constants[key]

    def integers(self, values: Iterable[int]) -> Held:
        """Store a list of int32, as operators take their parameters."""
        return self.constant(np.array([int(v) for v in values], np.int32))

    # operators

    def op(
        self,
        name: str,
        inputs: Sequence[Held | None],
        shape: Sequence[int],
        dtype: str | None = None,
        /,
        **options: Any,
    ) -> Held:
        """Append an operator with one output, by default of the type of its first input."""
        return self.ops(name, inputs, [shape], dtype, **options)[0]

    def ops(
        self,
        name: str,
        inputs: Sequence[Held | None],
        shapes: Sequence[Sequence[int]],
        dtype: str | None = None,
        /,
        **options: Any,
    ) -> list[Held]:
        """Append an operator with several outputs."""
        kind = dtype or next(held.dtype for held in inputs if held is not None)
        quanta = self._result(name, inputs) if kind == "int8" else None
        results = [self.tensor(f"{self.scope}/{name.lower()}", shape, kind, None, quanta) for shape in shapes]
        self._append(name, inputs, results, options)
        return results

    def _result(self, name: str, inputs: Sequence[Held | None]) -> Quanta | None:
        """Return the scale of what an operator makes of integers."""
        if name in SAME:
            return next((h.quanta for h in inputs if h is not None and h.dtype == "int8" and h.quanta), None)
        return FIXED.get(name, self.target)

    def typed_ops(
        self, name: str, inputs: Sequence[Held | None], results: Sequence[tuple[Sequence[int], str]]
    ) -> list[Held]:
        """Append an operator whose outputs are of different types: pairs of shape and type."""
        held = [self.tensor(f"{self.scope}/{name.lower()}", shape, dtype) for shape, dtype in results]
        self._append(name, inputs, held, {})
        return held

    def unary(self, name: str, x: Held, **options: Any) -> Held:
        """Append an operator whose output is like its input."""
        return self.op(name, [x], x.shape, **options)

    def binary(self, name: str, x: Held, y: Held | float, dtype: str | None = None) -> Held:
        """Append an operator of two operands that broadcast; a number becomes a constant of the other's type."""
        other = y if isinstance(y, Held) else self.number(y, x)
        left, right = self.data(x), self.data(other)
        if left is not None and right is not None and name in FOLDED and x.quanta is None:
            return self.constant(FOLDED[name](left, right))
        return self.op(name, [x, other], layout.broadcast(x.shape, other.shape), dtype)

    def number(self, value: float, like: Held) -> Held:
        """Store a number as a tensor holds its elements: in integers of its scale, where it has one."""
        if like.quanta is None:
            return self.constant(value, like.dtype)
        return self.constant(like.quanta.quantize(value), quanta=like.quanta)

    def requantize(self, x: Held, quanta: Quanta, dtype: str = "int8") -> Held:
        """Bring a tensor to 8 bits in a scale, where it is not in that already."""
        if x.quanta == quanta and x.dtype == dtype:
            return x
        held = self.tensor(f"{self.scope}/quantize", x.shape, dtype, None, quanta)
        self._append("QUANTIZE", [x], [held], {})
        return held

    def cast(self, x: Held, dtype: str) -> Held:
        """Change the element type, where it is another."""
        if x.dtype == dtype:
            return x
        kinds = {"from_type": schema.NUMBERS[x.dtype], "to_type": schema.NUMBERS[dtype]}
        return self.op("CAST", [x], x.shape, dtype, **kinds)

    def reshape(self, x: Held, shape: Sequence[int]) -> Held:
        """Reshape; a chain of them is one, and one that changes nothing is none."""
        target = checked(shape)
        maker = self._maker.get(x.index)
        if maker is not None and maker.name == "RESHAPE":
            x = self._held(maker.inputs[0], x)
        if x.shape == target:
            return x
        data = self.data(x)
        if data is not None:
            return self.constant(data.reshape(target))
        sizes = layout.emitted(target)
        return self.op("RESHAPE", [x, self.integers(sizes)], target, shape=sizes)

    def transpose(self, x: Held, order: Order) -> Held:
        """Permute the axes: a RESHAPE where only axes of size 1 move."""
        shape = layout.permuted(x.shape, order)
        if layout.only_relabels(x.shape, layout.identity(x.rank), order):
            return self.reshape(x, shape)
        data = self.data(x)
        if data is not None:
            return self.constant(data.transpose(order))
        return self.op("TRANSPOSE", [x, self.integers(order)], shape)

    def parts(self, x: Held, count: int, axis: int = 0) -> list[Held]:
        """Cut into equal parts; a constant is cut here, anything else when the file runs."""
        if count == 1:
            return [x]
        data = self.data(x)
        if data is not None:
            scales = [None] * count if x.quanta is None else x.quanta.split(count, axis)
            pieces = zip(np.split(data, count, axis), scales, strict=True)
            return [self.constant(piece, quanta=quanta) for piece, quanta in pieces]
        shape = [size // count if place == axis else size for place, size in enumerate(x.shape)]
        place = self.constant(np.int32(axis))
        return self.ops("SPLIT", [place, x], [shape] * count, x.dtype, count=count)

    def data(self, x: Held) -> np.ndarray | None:
        """Return the content of a constant."""
        return self._tensors[x.index].data

    def activate(self, x: Held, kind: str) -> bool:
        """Fuse an activation into the operator that makes `x`, which nothing else reads; says whether it could."""
        maker = self._maker.get(x.index)
        while maker is not None and maker.name == "RESHAPE" and self._reads[maker.outputs[0]] <= 1:
            x = self._held(maker.inputs[0], x)
            maker = self._maker.get(x.index)
        if maker is None or maker.name not in FUSING or x.dtype not in ("float32", "int8"):
            return False
        if maker.options.get("activation") or self._reads[x.index] > 1:
            return False
        maker.options["activation"] = ACTIVATIONS[kind]
        return True

    def maker(self, x: Held) -> tuple[str, list[int], dict[str, Any]] | None:
        """Return the operator that makes `x`: its name, and its inputs and options, which may be changed."""
        record = self._maker.get(x.index)
        return None if record is None else (record.name, record.inputs, record.options)

    def untouched(self, x: Held) -> bool:
        """Say whether no operator reads `x` yet."""
        return self._reads[x.index] == 0

    # values

    def get(self, value: Value, order: Order | None = None) -> Held:
        """Return the tensor that holds `value` in this order (default: the graph's), made where missing."""
        order = layout.identity(value.rank) if order is None else order
        if order not in value.forms:
            value.forms[order] = self._make(value, order)
        return value.forms[order]

    def put(self, value: Value, held: Held, order: Order | None = None) -> None:
        """Say that `held` stores `value` in this order."""
        order = layout.identity(held.rank) if order is None else order
        if value.dtype == "int8" and value.quanta is not None:
            held = self.requantize(held, value.quanta)
        if value.known_shape is None:
            value.known_shape = layout.permuted(
                held.shape, layout.relative(order, layout.identity(held.rank))
            )
        if layout.permuted(value.shape, order) != held.shape or held.dtype != value.dtype:
            raise ValueError(
                f"{value.name} is {value.dtype} {list(value.shape)}, not {held.dtype} {list(held.shape)} as {order}"
            )
        value.forms = {order: held}

    def _make(self, value: Value, order: Order) -> Held:
        if value.constant is not None:
            quanta = (
                None if value.quanta is None or value.dtype == "float32" else value.quanta.permuted(order)
            )
            return self.constant(value.constant.transpose(order), quanta=quanta)
        if not value.forms and value.integers is not None:
            held = self.get(value.integers, order)
            return self.op("DEQUANTIZE", [held], held.shape, "float32")
        if not value.forms and value.flattened is not None:
            value.forms[layout.identity(value.rank)] = self.reshape(self.get(value.flattened), value.shape)
            return self.get(value, order)
        for held_order, held in value.forms.items():
            if layout.only_relabels(value.shape, held_order, order):
                return self.reshape(held, layout.permuted(value.shape, order))
        held_order, held = next(iter(value.forms.items()))
        return self.transpose(held, layout.relative(held_order, order))

    # the end

    def finish(
        self, inputs: Sequence[tuple[str, Held]], outputs: Sequence[tuple[str, Held]], description: str
    ) -> TfliteFile:
        """Return the file with what its outputs need; pairs are names and tensors."""
        names = {held.index: name for name, held in (*inputs, *outputs)}
        operators = self._live({held.index for _, held in outputs})
        used = sorted(
            {held.index for _, held in (*inputs, *outputs)}
            | {i for o in operators for i in (*o.inputs, *o.outputs) if i >= 0}
        )
        number = {old: new for new, old in enumerate(used)} | {-1: -1}
        tensors = tuple(self._tensor(old, new, names) for new, old in enumerate(used))
        listed = tuple(
            Operator(
                i,
                o.name,
                tuple(number[k] for k in o.inputs),
                tuple(number[k] for k in o.outputs),
                _complete(o),
            )
            for i, o in enumerate(operators)
        )
        ends = [tuple((name, number[held.index]) for name, held in side) for side in (inputs, outputs)]
        return TfliteFile(
            tensors,
            listed,
            tuple(index for _, index in ends[0]),
            tuple(index for _, index in ends[1]),
            description,
            (),
            (Signature("serving_default", ends[0], ends[1]),),
        )

    def made(self, x: Held) -> bool:
        """Say whether an operator makes `x`."""
        return x.index in self._maker

    def _tensor(self, old: int, new: int, names: dict[int, str]) -> Tensor:
        t = self._tensors[old]
        name = names.get(old, t.name)
        return Tensor(
            new, name, t.dtype, t.shape, t.signature, t.data, t.scales, t.zero_points, t.axis, False, False
        )

    def _append(
        self, name: str, inputs: Sequence[Held | None], results: Sequence[Held], options: dict[str, Any]
    ) -> None:
        if any(isinstance(v, int) and not LEAST <= v <= MOST for v in options.values()):
            raise UnsupportedError(Code.ATTRIBUTE, "a number beyond 32 bits")
        sources = [-1 if held is None else held.index for held in inputs]
        record = _Record(name, sources, [held.index for held in results], options)
        self._operators.append(record)
        self._maker |= dict.fromkeys(record.outputs, record)
        self._reads.update(sources)

    def _held(self, index: int, like: Held) -> Held:
        tensor = self._tensors[index]
        shape = tuple(
            size * layout.BATCH if free == -1 else size
            for size, free in zip(tensor.shape, tensor.signature, strict=True)
        )
        return Held(index, shape, like.dtype, like.quanta)

    def _live(self, wanted: set[int]) -> list[_Record]:
        kept = []
        for record in reversed(self._operators):
            if wanted.intersection(record.outputs):
                wanted.update(record.inputs)
                kept.append(record)
        return kept[::-1]


def _complete(record: _Record) -> dict[str, Any]:
    """Return an operator's options with the defaults that a reader of the file will find."""
    options: dict[str, Any] = {
        key: default for key, (_, _, default) in schema.OPTIONS.get(record.name, {}).items()
    }
    if record.name in schema.LISTS:
        options[schema.LISTS[record.name][0]] = []
    unknown = set(record.options) - set(options)
    if unknown:
        raise ValueError(f"{record.name} has no options {sorted(unknown)}")
    return options | record.options
