"""A TFLite file as plain data, read without any runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError

from . import schema
from .flatbuffer import INT8, INT32, UINT32, UINT64, DamagedError, Table

MAX_RANK = 8


@dataclass(frozen=True)
class Tensor:
    """`shape` as stored; `signature` has -1 where a dimension is free; `data` is None for what is computed.

    The data of a sparse tensor is dense when it is written, and not read.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    data: np.ndarray | None
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int  # of the scales, where there are several
    variable: bool
    sparse: bool


@dataclass(frozen=True)
class Operator:
    """Inputs and outputs are indices of tensors; -1 is an input left out.

    `intermediates` are tensors without data that say the scales of what a recurrent layer computes inside.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]
    version: int = 1  # of the operator's definition; see `versions`
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Signature:
    """Names by which a caller knows the inputs and outputs: pairs of a name and a tensor's index."""

    key: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class TfliteFile:
    """The main graph of a file, in order of execution."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str = ""
    metadata: tuple[tuple[str, bytes], ...] = ()
    signatures: tuple[Signature, ...] = ()


def read(path: Path, *, max_bytes: int) -> TfliteFile:
    """Read a file; raises InputError in one sentence for whatever is wrong with it."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise InputError(f"{path} has {size} bytes, more than the limit of {max_bytes}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no model at {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if data[4:8] != schema.IDENTIFIER:
        raise InputError(f"{path} is not a TFLite file: it does not carry the mark TFL3")
    try:
        return _parse(data)
    except (DamagedError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is damaged or truncated: {error}") from None


def _parse(data: bytes) -> TfliteFile:
    model = Table.root(data)
    version = model.integer(0, UINT32)
    if version != schema.VERSION:
        raise DamagedError(f"it says schema version {version}, and only {schema.VERSION} is in use")
    codes = [_code(table) for table in model.tables(1)]
    buffers = list(model.tables(4))
    graph = next(iter(model.tables(2)), None)
    if graph is None:
        raise DamagedError("it holds no graph")
    tensors = tuple(_tensor(i, table, buffers) for i, table in enumerate(graph.tables(0)))
    operators = tuple(_operator(i, table, codes, len(tensors)) for i, table in enumerate(graph.tables(3)))
    inputs, outputs = (_indices(graph, slot, len(tensors), least=0) for slot in (1, 2))
    if not outputs:
        raise DamagedError("its graph has no outputs")
    metadata = tuple((table.text(0), _buffer(table, 1, buffers)) for table in model.tables(6))
    signatures = tuple(_signature(table, len(tensors)) for table in model.tables(7))
    return TfliteFile(tensors, operators, inputs, outputs, model.text(3), metadata, signatures)


def _code(table: Table) -> tuple[str, int]:
    """Return an operator's name and version."""
    number, version = max(table.integer(0, INT8), table.integer(3, INT32)), table.integer(2, INT32, 1)
    if number == schema.CUSTOM:
        return f"CUSTOM:{table.text(1)[:80]}", version
    return schema.OPERATORS[number] if 0 <= number < len(schema.OPERATORS) else f"number {number}", version


def _signature(table: Table, tensors: int) -> Signature:
    pairs = [tuple((t.text(0), t.integer(1, UINT32)) for t in table.tables(slot)) for slot in (0, 1)]
    if any(index >= tensors for side in pairs for _, index in side):
        raise DamagedError("a signature names a tensor that does not exist")
    return Signature(table.text(2), pairs[0], pairs[1])


def _buffer(table: Table, slot: int, buffers: list[Table]) -> bytes:
    number = table.integer(slot, UINT32)
    if number >= len(buffers):
        raise DamagedError(f"buffer {number} is named, and there are {len(buffers)}")
    return bytes(_content(buffers[number]))


def _tensor(index: int, table: Table, buffers: list[Table]) -> Tensor:
    shape = tuple(map(int, table.array(0, "<i4")))
    signature = tuple(map(int, table.array(7, "<i4"))) or shape
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or len(signature) != len(shape):
        raise DamagedError(f"tensor {index} has no possible shape: {list(shape)}")
    kind = table.integer(1, INT8)
    dtype = schema.TYPES.get(kind, f"type {kind}")
    scales, zero_points, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if (quantization := table.table(4)) is not None:
        scales, zero_points = quantization.array(2, "<f4"), quantization.array(3, "<i8")
        axis = quantization.integer(6)
    number = table.integer(2, UINT32)
    if number >= max(len(buffers), 1):
        raise DamagedError(f"tensor {index} names buffer {number} of {len(buffers)}")
    sparse = table.has(6)
    # buffer 0 is empty by convention
    data = _content(buffers[number]) if buffers and not sparse else memoryview(b"")
    return Tensor(
        index,
        table.text(3),
        dtype,
        shape,
        signature,
        _array(index, data, dtype, shape) if len(data) and dtype in schema.DTYPES.values() else None,
        scales,
        zero_points,
        axis,
        bool(table.integer(5, INT8)),
        sparse,
    )


def _content(buffer: Table) -> memoryview:
    """Return a buffer's bytes; those of large files lie behind the flatbuffer."""
    offset, size = buffer.integer(1, UINT64), buffer.integer(2, UINT64)
    if offset <= 1:
        return buffer.bytes(0)
    if offset + size > len(buffer.data):
        raise DamagedError("a buffer reaches beyond the end of the file")
    return memoryview(buffer.data)[offset : offset + size]


def _array(index: int, data: memoryview, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise DamagedError(f"tensor {index} has {len(data)} bytes, which do not fill {dtype} {list(shape)}")
    if dtype == "bool":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape)


def _operator(index: int, table: Table, codes: list[tuple[str, int]], tensors: int) -> Operator:
    code = table.integer(0, UINT32)
    if code >= len(codes):
        raise DamagedError(f"operator {index} names operator code {code} of {len(codes)}")
    name, version = codes[code]
    found = table.table(4)
    options: dict[str, Any] = {}
    for key, (slot, kind, default) in schema.OPTIONS.get(name, {}).items():
        options[key] = default if found is None else found.number(slot, kind, default)
    if name in schema.LISTS:
        key, slot = schema.LISTS[name]
        options[key] = [] if found is None else [int(v) for v in found.array(slot, "<i4")]
    inputs, outputs = _indices(table, 1, tensors, least=-1), _indices(table, 2, tensors, least=0)
    return Operator(index, name, inputs, outputs, options, version, _indices(table, 8, tensors, least=0))


def _indices(table: Table, slot: int, tensors: int, *, least: int) -> tuple[int, ...]:
    found = tuple(map(int, table.array(slot, "<i4")))
    if any(not least <= i < tensors for i in found):
        raise DamagedError("an index of a tensor is out of range")
    return found
