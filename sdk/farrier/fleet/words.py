"""Numbers and facts as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

NOTHING = "–"


def latency(seconds: float | None) -> str:
    """Return a duration with three digits: 850 µs, 3.21 ms, 1.40 s."""
    if seconds is None:
        return NOTHING
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds and seconds * factor < 999.5:
            return f"{digits(seconds * factor)} {unit}"
    return f"{digits(seconds)} s" if seconds else "0"


def digits(value: float | None) -> str:
    """Return a number with about three digits, and thousands apart."""
    if value is None:
        return NOTHING
    size = abs(value)
    if size >= 99.95 or abs(value - round(value)) < 1e-9:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def share(value: float | None) -> str:
    """Return a share of 1 in percent."""
    return NOTHING if value is None else f"{digits(value * 100)} %"


def size(value: float | None) -> str:
    """Return a number of bytes."""
    if value is None:
        return NOTHING
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 1 << power:
            return f"{digits(value / (1 << power))} {unit}"
    return f"{digits(value)} B"


def ago(seconds: float | None) -> str:
    """Return how long ago something was."""
    if seconds is None:
        return "never"
    if seconds < 2:
        return "now"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def clock(wall_ns: int) -> str:
    """Return a wall time in this machine's time zone."""
    return datetime.fromtimestamp(wall_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def account(balance: Mapping[str, Any]) -> str:
    """Return a telemetry account in one line."""
    if not balance["produced"] and not balance["received"]:
        return "no telemetry yet"
    lost = f", {balance['ledgered']:,} ledgered" if balance["ledgered"] else ""
    missing = balance["missing"]
    state = f"{missing:,} on their way or missing" if missing else "balanced"
    return f"{balance['received']:,} points stored{lost}, {state}"


def table_row(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of one device in `fleet ls`: one per deployment, and at least one."""
    work = facts["performance"]
    numbers = (digits(work["requests_per_s"]), latency(work["p50_s"]), latency(work["p99_s"]))
    seen = ago(facts["seen_ago_s"])
    rows = [(each["name"], each["version"], each["phase"]) for each in facts["deployments"]]
    rows = rows or [(NOTHING, NOTHING, NOTHING)]
    first = (facts["device"], facts["presence"], *rows[0], *numbers, seen)
    return [first, *(("", "", *row, "", "", "", "") for row in rows[1:])]


def device_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Return `fleet show` line by line."""
    work = facts["performance"]
    yield f"{facts['device']} of fleet {facts['fleet']}: {facts['presence']}, seen {ago(facts['seen_ago_s'])}"
    yield f"desired state {facts['desired_version']}, acted on {max(facts['reported_version'], 0)}"
    for each in facts["deployments"]:
        where = f" at {each['endpoint']}" if each["endpoint"] else ""
        why = f": {each['detail']}" if each["detail"] else ""
        yield f"  {each['name']}: {each['bundle']} {each['version']} {each['phase']}{where}{why}"
    yield (
        f"last 30 s: {digits(work['requests_per_s'])} requests/s, p50 {latency(work['p50_s'])}, "
        f"p99 {latency(work['p99_s'])}, cache hits {share(work['cache_hit_share'])}"
    )
    yield f"telemetry: {account(facts['balance'])}"
    for each in facts["streams"]:
        produced = NOTHING if each["produced"] is None else each["produced"]
        yield (
            f"  boot {each['boot']:.8} {each['stream']}: produced {produced}, received {each['received']}, "
            f"ledgered {each['ledgered']}, duplicates {each['duplicates']}"
        )
    yield f"events: {len(facts['events'])}"
    for each in facts["events"]:
        yield f"  {clock(each['wall_ns'])} {each['kind']}: {each['document'].get('detail', '')}"
