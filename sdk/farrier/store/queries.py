"""What the store knows, as typed functions: the same facts for the command line, the dashboard and scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from farrier_contracts.errors import FarrierError, InputError, UsageError
from farrier_contracts.wire.documents import Desired, Reported

from .database import Store
from .records import Balance, Bucket, Device, Event, Reading, Totals

MAX_BUCKETS = 2000
MAX_EVENTS = 1000
RECENT_STREAMS = 8  # of a device, looked at for what it measures
RECENT_POINTS = 200  # of each of them
INTERVAL_POINTS = 20  # what the usual time between two points is measured over

_DEVICE = """
    SELECT id, fleet, name, online, session, boot, seen_ns, birth, reported,
        (SELECT document FROM desired WHERE device_id = devices.id ORDER BY version DESC LIMIT 1)
    FROM devices"""


def devices(store: Store, *, fleet: str | None = None) -> list[Device]:
    """Return all devices, of one fleet or of the store, by name."""
    rows = store.connection.execute(
        _DEVICE + " WHERE ?1 IS NULL OR fleet = ?1 ORDER BY fleet, name", (fleet,)
    ).fetchall()
    return [_device(row) for row in rows]


def device(store: Store, name: str, *, fleet: str | None = None) -> Device:
    """Return one device; raises InputError where there is none of that name, or one in each of several fleets."""
    rows = store.connection.execute(
        _DEVICE + " WHERE name = ?2 AND (?1 IS NULL OR fleet = ?1) LIMIT 2", (fleet, name)
    ).fetchall()
    if not rows:
        raise InputError(
            f"no device {name!r:.80} is known{f' in fleet {fleet}' if fleet else ''}; see `farrier fleet ls`"
        )
    if len(rows) > 1:
        raise InputError(f"several fleets have a device {name!r:.80}; say which fleet")
    return _device(rows[0])


def current_desired(store: Store, device_id: int) -> Desired | None:
    """Return a device's desired state, or None where nothing was ever asked of it."""
    return _desired(store, device_id, 0)


def desired_before(store: Store, device_id: int) -> Desired | None:
    """Return the desired state before the current one, or None where there is none."""
    return _desired(store, device_id, 1)


def balance(store: Store, device_id: int) -> list[Balance]:
    """Return the account of every stream of every boot of a device, oldest first."""
    rows = store.connection.execute(
        "SELECT id, boot, stream, produced, received, duplicates, acknowledged, dropped FROM streams "
        "LEFT JOIN statements ON stream_id = id WHERE device_id = ? ORDER BY id",
        (device_id,),
    ).fetchall()
    return [_balance(store, *row) for row in rows]


def totals(store: Store, *, fleet: str | None = None) -> Totals:
    """Return the sums over all devices of a fleet, or of the store."""
    known = devices(store, fleet=fleet)
    accounts = [account for each in known for account in balance(store, each.id)]
    return Totals(
        devices=len(known),
        online=sum(each.online for each in known),
        produced=sum(account.produced for account in accounts),
        received=sum(account.received for account in accounts),
        ledgered=sum(account.ledgered for account in accounts),
        duplicates=sum(account.duplicates for account in accounts),
        missing=sum(account.missing for account in accounts),
        unsettled=sum(not account.settled for account in accounts),
    )


def series(
    store: Store, device_id: int, metrics: Sequence[str], *, since_ns: int, until_ns: int, buckets: int
) -> dict[str, list[Bucket]]:
    """Return each metric's readings between two wall times in at most `buckets` slices; empty slices are left out."""
    if not 1 <= buckets <= MAX_BUCKETS or until_ns <= since_ns:
        raise UsageError(f"a series needs 1 to {MAX_BUCKETS} buckets and a time span")
    width = -(-(until_ns - since_ns) // buckets)
    found: dict[str, list[Bucket]] = {name: [] for name in metrics}
    if not metrics:
        return found
    # The inner query makes one JSON look-up per metric and point; the outer one aggregates.
    picks = ", ".join(f"json_extract(readings, ?) AS m{index}" for index in range(len(metrics)))
    sums = ", ".join(f"count(m{i}), sum(m{i}), min(m{i}), max(m{i})" for i in range(len(metrics)))
    rows = store.connection.execute(
        f"SELECT slice, {sums} FROM (SELECT (wall_ns - ?) / ? AS slice, {picks} FROM streams "
        "JOIN points ON stream_id = id WHERE device_id = ? AND wall_ns >= ? AND wall_ns < ?) "
        "GROUP BY slice ORDER BY slice",
        (since_ns, width, *map(_json_path, metrics), device_id, since_ns, until_ns),
    )
    for piece, *columns in rows:
        for index, name in enumerate(metrics):
            count, total, low, high = columns[index * 4 : index * 4 + 4]
            if count:
                found[name].append(Bucket(since_ns + piece * width, count, total, low, high))
    return found


def first_time(store: Store, device_id: int) -> int | None:
    """Return the wall time in nanoseconds of a device's first stored point, or None."""
    return store.connection.execute(
        "SELECT min((SELECT min(wall_ns) FROM points WHERE stream_id = streams.id)) FROM streams WHERE device_id = ?",
        (device_id,),
    ).fetchone()[0]


def latest(store: Store, device_id: int) -> dict[str, Reading]:
    """Return the newest point of each stream that a device ever sent, by the stream's name."""
    found: dict[str, Reading] = {}
    for stream, wall_ns, values in _newest(store, device_id):
        if stream not in found or found[stream].wall_ns < wall_ns:
            found[stream] = Reading(stream, wall_ns, json.loads(values))
    return found


def columns(store: Store, device_id: int) -> list[str]:
    """Return the names of what a device measured lately: devices leave out what has nothing to say."""
    rows = store.connection.execute(
        "SELECT DISTINCT key FROM (SELECT id FROM streams WHERE device_id = ? ORDER BY id DESC LIMIT ?) AS s "
        "JOIN points AS p ON p.stream_id = s.id AND p.seq > (SELECT max(seq) FROM points WHERE stream_id = s.id) - ?, "
        "json_each(p.readings) ORDER BY key",
        (device_id, RECENT_STREAMS, RECENT_POINTS),
    )
    return [name for (name,) in rows]


def interval_ns(store: Store, device_id: int, stream: str) -> int | None:
    """Return the usual time between two points of a stream, None before there are two."""
    row = store.connection.execute(
        "SELECT (max(mono_ns) - min(mono_ns)) / nullif(count(*) - 1, 0) FROM (SELECT mono_ns FROM points "
        "WHERE stream_id = (SELECT max(id) FROM streams WHERE device_id = ? "
        "AND stream = ? AND received > 0) ORDER BY seq DESC LIMIT ?)",
        (device_id, stream, INTERVAL_POINTS),
    ).fetchone()
    return row[0] or None


def events(store: Store, device_id: int, *, limit: int = 50) -> list[Event]:
    """Return a device's events, the newest first."""
    rows = store.connection.execute(
        "SELECT kind, wall_ns, document FROM events WHERE device_id = ? ORDER BY wall_ns DESC, id DESC LIMIT ?",
        (device_id, min(limit, MAX_EVENTS)),
    )
    return [Event(kind, wall_ns, json.loads(document)) for kind, wall_ns, document in rows]


def _desired(store: Store, device_id: int, back: int) -> Desired | None:
    row = store.connection.execute(
        "SELECT document FROM desired WHERE device_id = ? ORDER BY version DESC LIMIT 1 OFFSET ?",
        (device_id, back),
    ).fetchone()
    return None if row is None else Desired.from_document(json.loads(row[0]))


def _device(row: tuple) -> Device:
    *plain, birth, reported, desired = row
    number, fleet, name, online, session, boot, seen_ns = plain
    return Device(
        number,
        fleet,
        name,
        bool(online),
        session,
        boot,
        seen_ns,
        json.loads(birth) if birth else {},
        Reported.from_document(json.loads(reported)) if reported else None,
        Desired.from_document(json.loads(desired)) if desired else None,
    )


def _newest(store: Store, device_id: int) -> Iterator[tuple[str, int, str]]:
    streams = store.connection.execute(
        "SELECT id, stream FROM streams WHERE device_id = ?", (device_id,)
    ).fetchall()
    for number, stream in streams:
        row = store.connection.execute(
            "SELECT wall_ns, readings FROM points WHERE stream_id = ? ORDER BY wall_ns DESC LIMIT 1",
            (number,),
        ).fetchone()
        if row is not None:
            yield stream, *row


def _balance(
    store: Store,
    row: int,
    boot: str,
    stream: str,
    stated: int | None,
    received: int,
    duplicates: int,
    acknowledged: int,
    dropped: str | None,
) -> Balance:
    ranges = json.loads(dropped or "[]")
    ledgered = sum(last - first + 1 - _stored(store, row, first, last) for first, last in ranges)
    newest = store.connection.execute("SELECT max(seq) FROM points WHERE stream_id = ?", (row,)).fetchone()[0]
    produced = max(stated or 0, 0 if newest is None else newest + 1)
    return Balance(boot, stream, produced, received, ledgered, duplicates, acknowledged, stated is not None)


def _stored(store: Store, stream: int, first: int, last: int) -> int:
    return store.connection.execute(
        "SELECT count(*) FROM points WHERE stream_id = ? AND seq BETWEEN ? AND ?", (stream, first, last)
    ).fetchone()[0]


def _json_path(metric: str) -> str:
    if '"' in metric or "\\" in metric:
        raise FarrierError(f"a metric cannot be called {metric!r:.80}")
    return f'$."{metric}"'
