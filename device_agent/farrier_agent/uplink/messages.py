"""The bytes of what an agent sends and receives: documents in CBOR (or JSON, inbound), sealed."""

from __future__ import annotations

import json
from typing import Any, Mapping, Tuple

import cbor2

from farrier_contracts.errors import InputError
from farrier_contracts.wire import payload, telemetry


def pack(document: Mapping[str, Any]) -> bytes:
    """Return a document's payload; raises InputError where it is too large, or not made of plain data."""
    try:
        return payload.seal(cbor2.dumps(document))
    except (cbor2.CBORError, RecursionError):
        raise InputError("a message cannot be written as CBOR") from None


def unpack(data: bytes) -> Any:
    """Return the document of a payload, not yet checked; raises InputError."""
    body = payload.unseal(data)
    try:
        return json.loads(body) if payload.is_json(body) else cbor2.loads(body)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError):
        raise InputError("a message is neither CBOR nor JSON") from None


def pack_batch(batch: telemetry.Batch) -> Tuple[telemetry.Batch, bytes]:
    """Return the longest part of a batch that one message may hold, and its payload."""
    while True:
        names = {name for point in batch.points for name in point.values}
        try:
            if len(names) <= telemetry.MAX_COLUMNS:
                return batch, pack(telemetry.to_document(batch))
        except InputError:
            if len(batch.points) == 1:
                raise
        half = max(1, len(batch.points) // 2)
        batch = telemetry.Batch(batch.boot, batch.low, batch.clock, batch.points[:half])
