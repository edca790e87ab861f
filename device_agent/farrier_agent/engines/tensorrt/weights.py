"""Write a graph's stored INT8 weights as releases before 10 want them: float32 behind a quantizer of their own.

The builder computes the quantizer once and gets the same integers back. The file is edited on the wire, field by field,
so that a device needs no ONNX library. Sources: onnx/onnx.proto3 for the field numbers; protobuf, "Encoding".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Dict, Iterator, List, Tuple, Union

import numpy as np

from farrier_contracts.errors import BundleError

STORED_FROM = (10,)  # releases whose importer takes INT8 weights as they are
FLOAT, INT8 = 1, 3  # TensorProto.DataType
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
GRAPH = 7  # of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
INPUT, OUTPUT, OP_TYPE, ATTRIBUTE = 1, 2, 4, 5  # of NodeProto
NAME, WHOLE, TYPE, INT = 1, 3, 20, 2  # of AttributeProto, and its type of one whole number
DIMS, DATA_TYPE, TENSOR_NAME, RAW = 1, 2, 8, 9  # of TensorProto
DAMAGED = "the graph is no ONNX file: build the bundle again"

Bytes = Union[bytes, memoryview]


@dataclass(frozen=True)
class Field:
    """One field: its number, its value (a number or bytes), and all of it as it stands in the file."""

    number: int
    value: Union[int, memoryview]
    whole: memoryview

    @property
    def text(self) -> str:
        """The value as a name."""
        return bytes(self._bytes).decode(errors="replace")

    @property
    def fields(self) -> List[Field]:
        """The value as a message."""
        return list(fields(self._bytes))

    @property
    def _bytes(self) -> memoryview:
        if isinstance(self.value, int):
            raise BundleError(DAMAGED)
        return self.value


@dataclass(frozen=True)
class Tensor:
    """A constant with its bytes in the file."""

    shape: Tuple[int, ...]
    dtype: int
    raw: memoryview


def as_floats(model: bytes) -> bytes:
    """Return the graph with quantizers in front of stored weights; raises BundleError for what is no graph."""
    return b"".join(
        _message(GRAPH, _graph(field.fields)) if field.number == GRAPH else field.whole
        for field in fields(memoryview(model))
    )


def fields(data: memoryview) -> Iterator[Field]:
    """Read a message; raises BundleError where it is cut or damaged."""
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        kind = key & 7
        value: Union[int, memoryview]
        if kind == VARINT:
            value, at = _varint(data, at)
        else:
            size, at = (8 if kind == FIXED64 else 4, at) if kind != BYTES else _varint(data, at)
            if kind not in (FIXED64, BYTES, FIXED32) or at + size > len(data):
                raise BundleError(DAMAGED)
            value = data[at : at + size]
            at += size
        yield Field(key >> 3, value, data[start:at])


def _graph(given: List[Field]) -> bytes:
    tensors = {name: f for f in given if f.number == INITIALIZER for name in _texts(f, TENSOR_NAME)}
    stored = {name: tensor for name, tensor in _tensors(tensors) if tensor.dtype == INT8}
    scales = {name: tensor for name, tensor in _tensors(tensors) if tensor.dtype == FLOAT}
    quantizers: Dict[str, bytes] = {}
    added: List[bytes] = []
    for node in (f for f in given if f.number == NODE):
        inputs = _texts(node, INPUT)
        if _texts(node, OP_TYPE) != ["DequantizeLinear"] or len(inputs) < 3 or inputs[0] not in stored:
            continue
        name, scale, zero = inputs[:3]
        if name in quantizers or scale not in scales:
            continue
        axis = _axis(node)
        added.append(_message(INITIALIZER, _real(f"{name}/real", stored[name], scales[scale], axis)))
        quantizers[name] = _message(NODE, _quantizer(f"{name}/real", scale, zero, name, axis))
    kept = [
        f.whole for f in given if f.number != INITIALIZER or not set(_texts(f, TENSOR_NAME)) & set(quantizers)
    ]
    return b"".join([*quantizers.values(), *kept, *added])


def _tensors(found: Dict[str, Field]) -> Iterator[Tuple[str, Tensor]]:
    for name, field in found.items():
        parts = field.fields
        raw = [f.value for f in parts if f.number == RAW]
        kinds = [f.value for f in parts if f.number == DATA_TYPE]
        if len(raw) == 1 and isinstance(raw[0], memoryview) and len(kinds) == 1 and isinstance(kinds[0], int):
            yield name, Tensor(_shape(parts), kinds[0], raw[0])


def _shape(parts: List[Field]) -> Tuple[int, ...]:
    """Return the dimensions, each in a field of its own or several in one."""
    found: List[int] = []
    for field in parts:
        if field.number != DIMS:
            continue
        if isinstance(field.value, int):
            found.append(field.value)
            continue
        at = 0
        while at < len(field.value):
            size, at = _varint(field.value, at)
            found.append(size)
    return tuple(found)


def _real(name: str, stored: Tensor, scale: Tensor, axis: int) -> bytes:
    try:
        integers = np.frombuffer(stored.raw, np.int8).reshape(stored.shape)
        steps = np.frombuffer(scale.raw, "<f4").astype(np.float64)
        if steps.size != 1:
            steps = steps.reshape([-1 if a == axis % integers.ndim else 1 for a in range(integers.ndim)])
        values = (integers * steps.reshape(steps.shape if steps.size > 1 else ())).astype("<f4")
    except (ValueError, ZeroDivisionError):
        raise BundleError(DAMAGED) from None
    shape = b"".join(_number(DIMS, size) for size in stored.shape)
    return (
        shape
        + _number(DATA_TYPE, FLOAT)
        + _message(TENSOR_NAME, name.encode())
        + _message(RAW, values.tobytes())
    )


def _quantizer(source: str, scale: str, zero: str, result: str, axis: int) -> bytes:
    inputs = b"".join(_message(INPUT, name.encode()) for name in (source, scale, zero))
    attribute = _message(NAME, b"axis") + _number(WHOLE, axis) + _number(TYPE, INT)
    return (
        inputs
        + _message(OUTPUT, result.encode())
        + _message(OP_TYPE, b"QuantizeLinear")
        + _message(ATTRIBUTE, attribute)
    )


def _axis(node: Field) -> int:
    for field in node.fields:
        if field.number == ATTRIBUTE and _texts(field, NAME) == ["axis"]:
            for part in field.fields:
                if part.number == WHOLE and isinstance(part.value, int):
                    return struct.unpack("<q", struct.pack("<Q", part.value))[0]
    return 1


def _texts(field: Field, number: int) -> List[str]:
    return [part.text for part in field.fields if part.number == number]


def _varint(data: memoryview, at: int) -> Tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value & (1 << 64) - 1, at
    raise BundleError(DAMAGED)


def _encoded(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(number: int, value: int) -> bytes:
    return _encoded(number << 3 | VARINT) + _encoded(value)


def _message(number: int, content: Bytes) -> bytes:
    return _encoded(number << 3 | BYTES) + _encoded(len(content)) + bytes(content)
