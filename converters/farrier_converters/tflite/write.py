"""Write a TFLite file: the inverse of `file.read`, from the same table of slots.

Equal files give equal bytes. Buffers are aligned to 16 bytes, buffer 0 is empty, and operator codes hold both of the
fields that runtimes read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import flatbuffers
import numpy as np

from farrier_contracts.errors import InputError

from . import schema
from .file import Operator, Signature, Tensor, TfliteFile
from .zeros import rows_of

ALIGNMENT = 16  # bytes, of a buffer's content
SLACK = 1 << 16  # bytes that a small file takes besides its weights
MAX_BYTES = (1 << 31) - 1  # what the offsets of a flatbuffer reach
_COMPRESSED = 1  # the format of an axis of which only values are stored
_INDICES = {np.dtype("<i4"): 1, np.dtype("<u2"): 2, np.dtype("u1"): 3}  # the union SparseIndexVector
_DEPRECATED_CODES = 127  # the last number that fits the first of the two fields


def write(file: TfliteFile) -> bytes:
    """Return the bytes of a file; raises InputError for one beyond 2 GiB."""
    weights = sum(t.data.nbytes for t in file.tensors if t.data is not None)
    if weights + SLACK > MAX_BYTES:
        raise InputError(f"the model takes {weights} bytes, more than a TFLite file can hold (2 GiB)")
    return bytes(_Writer(weights + SLACK).model(file))


class _Writer:
    """A flatbuffer grows backwards: children are written before the tables that point to them."""

    def __init__(self, size: int) -> None:
        self.b = flatbuffers.Builder(size)
        self.buffers: dict[bytes, int] = {b"": 0}  # content -> number
        self.arrays: dict[tuple[str, bytes], int] = {}  # type and content -> position
        self.positions: list[int] = []

    def model(self, file: TfliteFile) -> bytearray:
        numbers = [self.buffer(_content(tensor)) for tensor in file.tensors]
        metadata = [(name, self.buffer(content)) for name, content in file.metadata]
        codes = sorted({(operator.name, operator.version) for operator in file.operators}, key=_code_order)
        fields = {
            1: self.vector([self.code(*code) for code in codes]),
            2: self.vector([self.graph(file, numbers, codes)]),
            3: self.b.CreateString(file.description),
            4: self.vector(self.all_buffers()),
            6: self.vector([self.named(name, number) for name, number in metadata]),
            7: self.vector([self.signature(s) for s in file.signatures]),
        }
        self.b.StartObject(10)
        self.b.PrependUint32Slot(0, schema.VERSION, 0)
        self.links(fields)
        self.b.Finish(self.b.EndObject(), schema.IDENTIFIER)
        return self.b.Output()

    def buffer(self, content: bytes) -> int:
        """Return the number of the buffer that holds this content."""
        return self.buffers.setdefault(content, len(self.buffers))

    def all_buffers(self) -> list[int]:
        written = []
        for content in self.buffers:
            data = self.raw(content) if content else 0
            self.b.StartObject(3)
            self.links({0: data})
            written.append(self.b.EndObject())
        return written

    def raw(self, content: bytes) -> int:
        """Write bytes whose first one is aligned in the finished file."""
        self.b.StartVector(1, len(content), ALIGNMENT)
        self.b.head -= len(content)
        self.b.Bytes[self.b.head : self.b.head + len(content)] = content
        return self.b.EndVector()

    def code(self, name: str, version: int) -> int:
        custom = name.startswith("CUSTOM:")
        text = self.b.CreateString(name.removeprefix("CUSTOM:")) if custom else 0
        number = schema.CUSTOM if custom else schema.OPERATORS.index(name)
        self.b.StartObject(4)
        self.b.PrependInt8Slot(0, min(number, _DEPRECATED_CODES), 0)
        self.links({1: text})
        self.b.PrependInt32Slot(2, version, 1)
        self.b.PrependInt32Slot(3, number, 0)
        return self.b.EndObject()

    def graph(self, file: TfliteFile, numbers: Sequence[int], codes: list[tuple[str, int]]) -> int:
        pairs = zip(file.tensors, numbers, strict=True)
        fields = {
            0: self.vector([self.tensor(tensor, number) for tensor, number in pairs]),
            1: self.integers(file.inputs),
            2: self.integers(file.outputs),
            3: self.vector([self.operator(o, codes.index((o.name, o.version))) for o in file.operators]),
            4: self.b.CreateString("main"),
        }
        self.b.StartObject(6)
        self.links(fields)
        return self.b.EndObject()

    def tensor(self, tensor: Tensor, number: int) -> int:
        fields = {
            0: self.integers(tensor.shape),
            3: self.b.CreateString(tensor.name),
            4: self.quantization(tensor),
            6: self.sparsity(tensor) if tensor.sparse else 0,
            7: self.integers(tensor.signature) if tensor.signature != tensor.shape else 0,
        }
        self.b.StartObject(11)
        self.links(fields)
        self.b.PrependInt8Slot(1, schema.NUMBERS[tensor.dtype], 0)
        self.b.PrependUint32Slot(2, number, 0)
        self.b.PrependBoolSlot(5, tensor.variable, False)
        self.b.PrependBoolSlot(8, True, False)  # has_rank: a scalar is no tensor of unknown rank
        return self.b.EndObject()

    def quantization(self, tensor: Tensor) -> int:
        if not len(tensor.scales):
            return 0
        fields = {
            2: self.array(tensor.scales.astype("<f4")),
            3: self.array(tensor.zero_points.astype("<i8")),
        }
        self.b.StartObject(7)
        self.links(fields)
        self.b.PrependInt32Slot(6, tensor.axis, 0)
        return self.b.EndObject()

    def sparsity(self, tensor: Tensor) -> int:
        """Write how a sparse tensor is stored: all axes but the last as they are, the last as places of values."""
        if tensor.data is None:
            raise InputError(f"the sparse tensor {tensor.name!r} holds no values")
        rows = rows_of(tensor.data)
        axes = [self.axis({1: size}) for size in tensor.shape[:-1]]
        parts = {3: self.counts(rows.ends), 5: self.counts(rows.places)}
        axes.append(self.axis(parts, kinds=(_INDICES[rows.ends.dtype], _INDICES[rows.places.dtype])))
        fields = {0: self.integers(range(len(tensor.shape))), 2: self.vector(axes)}
        self.b.StartObject(3)
        self.links(fields)
        return self.b.EndObject()

    def axis(self, fields: dict[int, int], *, kinds: tuple[int, int] | None = None) -> int:
        """Write a dimension: a dense size, or where a sparse one's parts are and of which kinds."""
        self.b.StartObject(6)
        if kinds is None:
            self.b.PrependInt32Slot(1, fields[1], 0)
        else:
            self.b.PrependInt8Slot(0, _COMPRESSED, 0)
            self.b.PrependUint8Slot(2, kinds[0], 0)
            self.b.PrependUint8Slot(4, kinds[1], 0)
            self.links(fields)
        return self.b.EndObject()

    def counts(self, values: np.ndarray) -> int:
        """Write a table that holds a vector of counts."""
        vector = self.array(values)
        self.b.StartObject(1)
        self.links({0: vector})
        return self.b.EndObject()

    def operator(self, operator: Operator, code: int) -> int:
        union = schema.UNION.get(operator.name, 0)
        fields = {
            1: self.integers(operator.inputs),
            2: self.integers(operator.outputs),
            4: self.options(operator) if union else 0,
            8: self.integers(operator.intermediates) if operator.intermediates else 0,
        }
        self.b.StartObject(14)
        self.b.PrependUint32Slot(0, code, 0)
        self.b.PrependUint8Slot(3, union, 0)
        self.links(fields)
        return self.b.EndObject()

    def options(self, operator: Operator) -> int:
        slots = schema.OPTIONS.get(operator.name, {})
        links = {}
        if operator.name in schema.LISTS:
            key, slot = schema.LISTS[operator.name]
            links[slot] = self.integers(operator.options.get(key, ()))
        self.b.StartObject(1 + max([slot for slot, _, _ in slots.values()] + list(links), default=0))
        self.links(links)
        prepend = {
            "<b": self.b.PrependInt8Slot,
            "<i": self.b.PrependInt32Slot,
            "<f": self.b.PrependFloat32Slot,
        }
        for key, (slot, kind, default) in slots.items():
            number = float if kind.code == "<f" else int
            prepend[kind.code](slot, number(operator.options.get(key, default)), number(default))
        return self.b.EndObject()

    def signature(self, signature: Signature) -> int:
        inputs, outputs = (
            self.vector([self.named(name, index) for name, index in pairs])
            for pairs in (signature.inputs, signature.outputs)
        )
        key = self.b.CreateString(signature.key)
        self.b.StartObject(5)
        self.links({0: inputs, 1: outputs, 2: key})
        return self.b.EndObject()

    def named(self, name: str, number: int) -> int:
        """Write a name and a number: an entry of the metadata, or a tensor of a signature."""
        text = self.b.CreateString(name)
        self.b.StartObject(2)
        self.links({0: text})
        self.b.PrependUint32Slot(1, number, 0)
        return self.b.EndObject()

    def vector(self, tables: Sequence[int]) -> int:
        self.b.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.b.PrependUOffsetTRelative(table)
        return self.b.EndVector()

    def integers(self, values: Iterable[int]) -> int:
        return self.array(np.array([int(v) for v in values], "<i4"))

    def array(self, values: np.ndarray) -> int:
        """Write numbers; equal ones are written once: shapes, and the zero points of so many channels."""
        key = values.dtype.str, values.tobytes()
        if key not in self.arrays:
            self.arrays[key] = self.b.CreateNumpyVector(values)
        return self.arrays[key]

    def links(self, fields: dict[int, int]) -> None:
        """Point to children of the table that is being written; 0 is none."""
        for slot, offset in fields.items():
            self.b.PrependUOffsetTRelativeSlot(slot, offset, 0)


def _content(tensor: Tensor) -> bytes:
    """Return the bytes of a constant; one without elements shares the empty buffer of computed tensors."""
    if tensor.data is None:
        return b""
    if tensor.sparse:
        return rows_of(tensor.data).values.astype(np.dtype(tensor.dtype).newbyteorder("<")).tobytes()
    return np.ascontiguousarray(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).tobytes()


def _code_order(code: tuple[str, int]) -> tuple[int, str, int]:
    name, version = code
    return schema.CUSTOM if name.startswith("CUSTOM:") else schema.OPERATORS.index(name), name, version
