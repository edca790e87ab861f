"""From a message's topic and payload, both hostile, to checked values. Rules only, no I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from farrier_contracts.errors import InputError
from farrier_contracts.wire import payload, telemetry, topics
from farrier_contracts.wire.documents import Reported, State

KINDS = ("state", "birth", "reported", "t", "e")  # what a collector listens to
DOCUMENT_MAX_BYTES = 256 << 10  # of a birth, reported or event document, written as JSON
INT64 = 1 << 63
CLOCK_FLOOR_NS = 1_700_000_000 * 10**9  # 2023-11-14: a device that says it is earlier has no clock yet


@dataclass(frozen=True)
class Arrival:
    """One checked message. `value` is a State, Reported, Batch, or the plain document of a birth or event."""

    topic: topics.Topic
    value: Any
    document: Mapping[str, Any]
    received_ns: int  # the collector's wall time
    retained: bool = False  # replayed by the broker, so no sign of life


def read(topic: str, body: bytes, *, received_ns: int, retained: bool = False) -> Arrival:
    """Check one message; raises InputError, and nothing else whatever was sent."""
    parsed = topics.parse(topic)
    if parsed is None or parsed.kind not in KINDS:
        raise InputError("a topic is not one that a collector reads")
    document = decode(body)
    try:
        value = _READERS[parsed.kind](document)
    except RecursionError:  # CBOR can say an object that holds itself
        raise InputError("a document is nested too deeply") from None
    return Arrival(parsed, value, document, received_ns, retained)


def decode(body: bytes) -> dict[str, Any]:
    """Return the object in a payload, CBOR or JSON; raises InputError."""
    plain = payload.unseal(body)
    try:
        document = json.loads(plain) if payload.is_json(plain) else _cbor(plain)
    except Exception:  # whatever a decoder makes of hostile bytes (also RecursionError, OverflowError)
        raise InputError("a payload is neither CBOR nor JSON") from None
    if not isinstance(document, dict):
        raise InputError("a payload is not an object")
    return document


def wall_offset_ns(batch: telemetry.Batch, received_ns: int) -> int:
    """Return what makes wall times of a batch's monotonic times.

    That is the device's own pair of clocks; a device whose clock was never set is dated by the time of arrival.
    """
    if batch.clock.wall_ns >= CLOCK_FLOOR_NS:
        return batch.clock.wall_ns - batch.clock.mono_ns
    return received_ns - batch.points[-1].mono_ns


def event_time_ns(document: Mapping[str, Any], received_ns: int) -> int:
    """Return an event's wall time: the device's own where it has one, else the time of arrival."""
    stated = document.get("wall_ns")
    if type(stated) is int and CLOCK_FLOOR_NS <= stated < INT64:
        return stated
    return received_ns


def _cbor(plain: bytes) -> Any:
    import cbor2

    return cbor2.loads(plain)


def _batch(document: Mapping[str, Any]) -> telemetry.Batch:
    batch = telemetry.from_document(document)
    _text(batch.boot)
    clock, newest = batch.clock, batch.points[-1].mono_ns
    times = [clock.mono_ns, clock.wall_ns, newest, newest + clock.wall_ns - clock.mono_ns]
    times += [point.mono_ns for point in batch.points]
    if not all(0 <= time < INT64 // 4 for time in times):
        raise InputError("a telemetry batch has times out of range")
    if any('"' in name or "\\" in name or not name.isprintable() for name in batch.points[0].values):
        raise InputError("a telemetry batch has a metric name that cannot be stored")
    return batch


def _state(document: Mapping[str, Any]) -> State:
    state = State.from_document(document)
    _text(state.boot)
    if not 0 <= state.session < INT64:
        raise InputError("a device's state has a session out of range")
    return state


def _reported(document: Mapping[str, Any]) -> Reported:
    _document(document)
    reported = Reported.from_document(document)
    for statement in reported.statements:
        _text(statement.boot)
        topics.checked_id(statement.stream, "a stream's name")
    return reported


def _document(document: Mapping[str, Any]) -> Mapping[str, Any]:
    if not all(map(_is_plain, document.items())):
        raise InputError("a document holds what JSON cannot say")
    if len(json.dumps(document)) > DOCUMENT_MAX_BYTES:
        raise InputError("a document is too large")
    return document


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < INT64)


def _text(value: str) -> None:
    if not value.isprintable():  # also lone surrogates, which no database takes
        raise InputError("a name in a message cannot be printed")


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "state": _state,
    "birth": _document,
    "reported": _reported,
    "t": _batch,
    "e": _document,
}
