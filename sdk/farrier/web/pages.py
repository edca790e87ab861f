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
from ..store import Device, Store, device, devices, first_time, totals
from .charts import Line, chart, sparkline

if TYPE_CHECKING:
    from jinja2 import Environment

SPANS_S: Mapping[str, int] = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400}
DEFAULT_SPAN = "5m"
YOUNG_SPANS_S = (60, 120)  # for devices with less to show than the span asked for
SLICES = 60
FACTS_IN_LIST = 20
FACT_CHARACTERS = 200
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
    environment.filters["fact"] = _fact
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
    for known, each in zip(devices(store), facts["devices"], strict=True):
        since, until = _span(store, known, DEFAULT_SPAN)
        curve = metrics.curves(store, known.id, since_ns=since, until_ns=until, buckets=SLICES)[metrics.P99]
        each["spark_minutes"] = round((until - since) / 60e9)
        title = f"p99 of {known.name}, last {each['spark_minutes']} min"
        each["spark"] = sparkline(curve, since_ns=since, until_ns=until, title=title)
    online = sum(each["presence"] == "online" for each in facts["devices"])
    return {**facts, "online": online}


def device_facts_of(store: Store, fleet: str, name: str) -> dict[str, Any]:
    """Return one device in full, as plain data; raises InputError where there is none."""
    return device_details(store, device(store, name, fleet=fleet), now_ns=time.time_ns())


def curves_of(store: Store, fleet: str, name: str, span: str) -> dict[str, Any]:
    """Return a device's curves as plain data."""
    known = device(store, name, fleet=fleet)
    since, until = _span(store, known, span)
    found = metrics.curves(store, known.id, since_ns=since, until_ns=until, buckets=SLICES)
    return {metric: asdict(curve) for metric, curve in found.items()}


def device_page(store: Store, fleet: str, name: str, span: str) -> dict[str, Any]:
    """Return what a device's page shows."""
    known = device(store, name, fleet=fleet)
    details = device_details(store, known, now_ns=time.time_ns())
    span = span if span in SPANS_S else DEFAULT_SPAN
    return {"device": details, "charts": _charts(store, known, span), "span": span, "spans": list(SPANS_S)}


def _fact(value: Any, key: str) -> str:
    # A birth's document is the device's own: anything may stand in it.
    if key.endswith("_bytes") and isinstance(value, (int, float)):
        return words.size(value)
    if isinstance(value, list):
        return ", ".join(map(str, value[:FACTS_IN_LIST])) or words.NOTHING
    return str(value)[:FACT_CHARACTERS]


def _charts(store: Store, known: Device, span: str) -> list[dict[str, Any]]:
    since, until = _span(store, known, span)
    found = metrics.curves(store, known.id, since_ns=since, until_ns=until, buckets=SLICES)

    def line(name: str, css: str, metric: str) -> Line:
        return Line(name, css, found[metric])

    plans = [
        ("Latency", [line("p50", "p50", metrics.P50), line("p99", "p99", metrics.P99)], words.latency, 1e-3),
        (
            "Throughput",
            [line("requests", "rate", metrics.REQUESTS), line("errors", "errors", metrics.ERRORS)],
            _rate,
            1,
        ),
        ("Cache hit share", [Line("hits", "hits", metrics.hit_share(found))], words.share, 0.01),
        ("Batch size", [Line("items", "rate", metrics.batch_size(found))], words.digits, 1),
        (
            "CPU",
            [line("device", "cpu", metrics.CPU), line("agent", "own", metrics.OWN_CPU)],
            words.share,
            0.01,
        ),
        ("Memory of the agent", [line("agent", "memory", metrics.MEMORY)], words.size, 1 << 20),
    ]
    return [
        {
            "title": title,
            "lines": lines if len(lines) > 1 else [],
            "svg": chart(lines, since_ns=since, until_ns=until, words=say, title=title, unit=unit),
        }
        for title, lines, say, unit in plans
    ]


def _rate(value: float) -> str:
    return f"{words.digits(value)}/s"


def _span(store: Store, known: Device, span: str) -> tuple[int, int]:
    """Return the wall times to show: the span asked for, or a shorter one that holds all that a young device has."""
    now, asked = time.time_ns(), SPANS_S.get(span, SPANS_S[DEFAULT_SPAN])
    first = first_time(store, known.id)
    age_s = (now - first) / 1e9 if first else asked
    shown = next((s for s in (*YOUNG_SPANS_S, *SPANS_S.values()) if age_s <= s <= asked), asked)
    # Whole slices, so that a point stays in its slice when the page is drawn again.
    width = shown * 10**9 // SLICES
    until = -(-now // width) * width
    return until - width * SLICES, until
