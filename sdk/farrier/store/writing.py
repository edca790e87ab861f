"""What the collector and the fleet commands write. Every function belongs inside `store.transaction()`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from farrier_contracts.errors import FarrierError
from farrier_contracts.wire.documents import Desired, State
from farrier_contracts.wire.telemetry import Batch, Statement, advance

from .database import Store

MAX_DEVICES = 100_000  # of one store: a flood of invented names must not fill the disk


def device_id(store: Store, fleet: str, name: str) -> int:
    """Return the row of a device, made on its first message; raises FarrierError above MAX_DEVICES."""
    find = "SELECT id FROM devices WHERE fleet = ? AND name = ?"
    row = store.connection.execute(find, (fleet, name)).fetchone()
    if row is not None:
        return row[0]
    if store.connection.execute("SELECT count(*) FROM devices").fetchone()[0] >= MAX_DEVICES:
        raise FarrierError(f"the store holds {MAX_DEVICES} devices already, new ones are refused")
    return _inserted(store, "INSERT INTO devices (fleet, name) VALUES (?, ?)", (fleet, name))


def seen(store: Store, device: int, wall_ns: int) -> None:
    """Record that a device was heard of."""
    store.connection.execute("UPDATE devices SET seen_ns = max(seen_ns, ?) WHERE id = ?", (wall_ns, device))


def set_state(store: Store, device: int, state: State) -> bool:
    """Record presence and return True, or return False for the old will of an ended connection."""
    online, session = store.connection.execute(
        "SELECT online, session FROM devices WHERE id = ?", (device,)
    ).fetchone()
    if online and not state.online and state.session < session:
        return False
    store.connection.execute(
        "UPDATE devices SET online = ?, session = ?, boot = ? WHERE id = ?",
        (state.online, state.session, state.boot, device),
    )
    return True


def set_birth(store: Store, device: int, document: Mapping[str, Any]) -> None:
    """Keep a device's newest birth document."""
    store.connection.execute("UPDATE devices SET birth = ? WHERE id = ?", (_json(document), device))


def set_reported(store: Store, device: int, document: Mapping[str, Any]) -> None:
    """Keep a device's newest reported document."""
    store.connection.execute("UPDATE devices SET reported = ? WHERE id = ?", (_json(document), device))


def set_desired(store: Store, device: int, desired: Desired) -> None:
    """Append a device's next desired state."""
    store.connection.execute(
        "INSERT INTO desired VALUES (?, ?, ?, ?)",
        (device, desired.version, time.time_ns(), _json(desired.to_document())),
    )


def set_statement(store: Store, device: int, statement: Statement) -> None:
    """Keep what a device states about one stream; a statement older than the stored one is ignored."""
    row = (stream_id(store, device, statement.boot, statement.stream), statement.produced)
    store.connection.execute(
        "INSERT INTO statements VALUES (?, ?, ?) ON CONFLICT (stream_id) DO UPDATE "
        "SET produced = excluded.produced, dropped = excluded.dropped WHERE excluded.produced >= produced",
        (*row, json.dumps(merged(statement.dropped))),
    )


def add_event(store: Store, device: int, kind: str, *, wall_ns: int, document: Mapping[str, Any]) -> bool:
    """Store an event once and return True, or return False for one that is there already."""
    text = _json(document)
    digest = hashlib.sha256(text.encode()).hexdigest()
    cursor = store.connection.execute(
        "INSERT OR IGNORE INTO events (device_id, kind, wall_ns, digest, document) VALUES (?, ?, ?, ?, ?)",
        (device, kind, wall_ns, digest, text),
    )
    return cursor.rowcount > 0


def stream_id(store: Store, device: int, boot: str, stream: str) -> int:
    """Return the row of one stream of one boot, made on its first message."""
    find = "SELECT id FROM streams WHERE device_id = ? AND boot = ? AND stream = ?"
    row = store.connection.execute(find, (device, boot, stream)).fetchone()
    if row is not None:
        return row[0]
    insert = "INSERT INTO streams (device_id, boot, stream) VALUES (?, ?, ?)"
    return _inserted(store, insert, (device, boot, stream))


def add_batch(store: Store, stream: int, batch: Batch, *, wall_offset_ns: int) -> tuple[int, int]:
    """Store the points that are new; return how many, and the number to acknowledge (-1 for none).

    `wall_offset_ns` is what to add to the batch's monotonic times. Points that arrive twice are counted, not stored.
    """
    connection = store.connection
    cursor = connection.executemany(
        "INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?, ?)",
        [(stream, p.seq, p.mono_ns, p.mono_ns + wall_offset_ns, _json(p.values)) for p in batch.points],
    )
    new = cursor.rowcount
    (acknowledged,) = connection.execute(
        "SELECT acknowledged FROM streams WHERE id = ?", (stream,)
    ).fetchone()
    reached = _contiguous(store, stream, advance(acknowledged, batch.first, batch.last, batch.low))
    connection.execute(
        "UPDATE streams SET acknowledged = ?, received = received + ?, duplicates = duplicates + ? WHERE id = ?",
        (reached, new, len(batch.points) - new, stream),
    )
    return new, reached


def merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges [first, last] in order, with overlapping and touching ones made one."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def _contiguous(store: Store, stream: int, reached: int) -> int:
    # A batch that filled a gap also frees what was stored beyond the gap before.
    following = "SELECT 1 FROM points WHERE stream_id = ? AND seq = ?"
    if store.connection.execute(following, (stream, reached + 1)).fetchone() is None:
        return reached
    return store.connection.execute(
        "SELECT seq FROM points AS p WHERE stream_id = ? AND seq > ? AND NOT EXISTS "
        "(SELECT 1 FROM points WHERE stream_id = p.stream_id AND seq = p.seq + 1) ORDER BY seq LIMIT 1",
        (stream, reached),
    ).fetchone()[0]


def _inserted(store: Store, statement: str, values: tuple[object, ...]) -> int:
    row = store.connection.execute(statement, values).lastrowid
    if row is None:
        raise FarrierError("the fleet store did not take a new row")
    return row


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
