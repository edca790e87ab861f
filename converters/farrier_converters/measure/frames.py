"""Messages between a measuring process and the engine's own: a JSON header and raw arrays, both bounded."""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_PREFIX = struct.Struct("<IQ")  # bytes of the header, bytes of all arrays
HEADER_MAX_BYTES = 4 << 20
PAYLOAD_MAX_BYTES = 2 << 30
READ_BYTES = 1 << 20
KINDS = "biuf"  # numpy kinds that may travel: booleans and numbers


class PipeError(Exception):
    """The other side is gone, silent for too long, or speaks nonsense."""


@dataclass(frozen=True)
class Frame:
    """One message: plain fields and named arrays."""

    fields: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def encode(frame: Frame) -> list[bytes | memoryview]:
    """Return the message's pieces in order; raises PipeError for arrays that cannot travel."""
    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in frame.arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise PipeError(f"tensor {name!r} is of type {array.dtype}, which cannot be measured")
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"fields": dict(frame.fields), "arrays": described}).encode()
    size = sum(array.nbytes for array in arrays.values())
    if len(header) > HEADER_MAX_BYTES or size > PAYLOAD_MAX_BYTES:
        raise PipeError(f"a run's tensors take {size} bytes, at most {PAYLOAD_MAX_BYTES} can be passed")
    views = [array.reshape(-1).view(np.uint8).data for array in arrays.values() if array.nbytes]
    return [_PREFIX.pack(len(header), size) + header, *views]


def decode(header: bytes, payload: bytearray) -> Frame:
    """Build the message back; raises PipeError where it is not one."""
    try:
        document = json.loads(header)
        arrays, offset = {}, 0
        for name, dtype_name, shape in document["arrays"]:
            dtype = np.dtype(dtype_name)
            count = math.prod(shape)
            if dtype.kind not in KINDS or count < 0:
                raise ValueError("a tensor that cannot travel")
            arrays[name] = np.frombuffer(payload, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
        return Frame(document["fields"], arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise PipeError(f"the engine's process speaks nonsense: {error}") from None


def send(descriptor: int, frame: Frame, *, limit_s: float | None = None) -> None:
    """Write a message; raises PipeError when the reader is gone or does not read in time."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    for piece in encode(frame):
        view = memoryview(piece)
        while view:
            _wait(descriptor, deadline, writing=True)
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise PipeError("the engine's process is gone") from None


def receive(descriptor: int, *, limit_s: float | None = None) -> Frame:
    """Read a message; raises PipeError when the writer is gone or not done in time."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    header_size, payload_size = _PREFIX.unpack(_read(descriptor, _PREFIX.size, deadline))
    if header_size > HEADER_MAX_BYTES or payload_size > PAYLOAD_MAX_BYTES:
        raise PipeError("the engine's process sent more than may be passed")
    header = bytes(_read(descriptor, header_size, deadline))
    return decode(header, _read(descriptor, payload_size, deadline))


def _read(descriptor: int, size: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < size:
        _wait(descriptor, deadline, writing=False)
        chunk = os.read(descriptor, min(READ_BYTES, size - len(data)))
        if not chunk:
            raise PipeError("the engine's process is gone")
        data += chunk
    return data


def _wait(descriptor: int, deadline: float | None, *, writing: bool) -> None:
    if deadline is None:
        return
    left = deadline - time.monotonic()
    watched = ([], [descriptor], []) if writing else ([descriptor], [], [])
    if left <= 0 or not any(select.select(*watched, left)):
        raise PipeError("the engine's process did not answer in time")
