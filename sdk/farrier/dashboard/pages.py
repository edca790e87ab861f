"""What the pages show, from the store to HTML."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..fleet import metrics, words
from ..fleet.facts import device_details, device_facts
from ..store import Device, Store, device, devices, totals
from .charts import Line, chart, sparkline

if TYPE_CHECKING:
    from jinja2 import Environment

SPANS_S: Mapping[str, int] = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400}
DEFAULT_SPAN = "5m"
SPARK_SPAN_S = 300
SLICES = 60
FOLDER = Path(__file__).parent


@cache
def templates() -> Environment:
    """Return the templates, every value in them escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        words.latency,
        words.digits,
        words.share,
        words.size,
        words.ago,
        words.clock,
        words.account,
    ):
        environment.filters[function.__name__] = function
    return environment


def render(name: str, facts: Mapping[str, Any]) -> str:
    """Return one page or fragment."""
    return templates().get_template(name).render(facts)


def fleet_facts(store: Store) -> dict[str, Any]:
    """Return every device and the sums, as plain data."""
    now = time.time_ns()
    found = [device_facts(store, each, now_ns=now) for each in devices(store)]
    return {"devices": found, "totals": asdict(totals(store))}


def fleet_page(store: Store) -> dict[str, Any]:
    """Return what the fleet's page shows."""
    facts = fleet_facts(store)
    until = time.time_ns()
    since = until - SPARK_SPAN_S * 10**9
    for known, each in zip(devices(store), facts["devices"], strict=True):
        curve = metrics.curves(store, known.id, since_ns=since, until_ns=until, buckets=SLICES)[metrics.P99]
        title = f"p99 of {known.name} in the last five minutes"
        each["spark"] = sparkline(curve, since_ns=since, until_ns=until, title=title)
    online = sum(each["presence"] == "online" for each in facts["devices"])
    return {**facts, "online": online}


def device_facts_of(store: Store, fleet: str, name: str) -> dict[str, Any]:
    """Return one device in full, as plain data; raises InputError where there is none."""
    return device_details(store, device(store, name, fleet=fleet), now_ns=time.time_ns())


def curves_of(store: Store, fleet: str, name: str, span: str) -> dict[str, Any]:
    """Return a device's curves as plain data."""
    since, until = _span(span)
    known = device(store, name, fleet=fleet)
    found = metrics.curves(store, known.id, since_ns=since, until_ns=until, buckets=SLICES)
    return {metric: asdict(curve) for metric, curve in found.items()}


def device_page(store: Store, fleet: str, name: str, span: str) -> dict[str, Any]:
    """Return what a device's page shows."""
    known = device(store, name, fleet=fleet)
    details = device_details(store, known, now_ns=time.time_ns())
    span = span if span in SPANS_S else DEFAULT_SPAN
    return {"device": details, "charts": _charts(store, known, span), "span": span, "spans": list(SPANS_S)}


def _charts(store: Store, known: Device, span: str) -> list[dict[str, Any]]:
    since, until = _span(span)
    found = metrics.curves(store, known.id, since_ns=since, until_ns=until, buckets=SLICES)
    p50, p99 = Line("p50", "p50", found[metrics.P50]), Line("p99", "p99", found[metrics.P99])
    hits = Line("hits", "hits", metrics.shares(found[metrics.HITS], found[metrics.MISSES]))
    rate = Line("requests", "rate", found[metrics.REQUESTS])
    errors = Line("errors", "errors", found[metrics.ERRORS])
    system, own = Line("device", "cpu", found[metrics.CPU]), Line("agent", "own", found[metrics.OWN_CPU])
    memory = Line("agent", "memory", found[metrics.MEMORY])
    plans = [
        ("Latency", [p50, p99], words.latency),
        ("Throughput", [rate, errors], lambda value: f"{words.digits(value)}/s"),
        ("Cache hit share", [hits], words.share),
        ("CPU", [system, own], words.share),
        ("Memory", [memory], words.size),
    ]
    return [
        {
            "title": title,
            "lines": lines if len(lines) > 1 else [],
            "svg": chart(lines, since_ns=since, until_ns=until, words=say, title=title),
        }
        for title, lines, say in plans
    ]


def _span(span: str) -> tuple[int, int]:
    # Whole slices, so that a point stays in its slice when the page is drawn again.
    width = SPANS_S.get(span, SPANS_S[DEFAULT_SPAN]) * 10**9 // SLICES
    until = -(-time.time_ns() // width) * width
    return until - width * SLICES, until
