"""The report as one HTML page without any outside resource."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import drops, plots, words

if TYPE_CHECKING:
    from ..optimization.result import Entry

STYLE = Path(__file__).with_name("style.css")
TEMPLATE = Path(__file__).with_name("page.html")


def html(facts: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """Return the page; the entries carry the latency samples, which are only drawn."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    relative = bool(facts["metric"]["relative"])
    environment.filters.update(
        ms=words.milliseconds,
        size=words.size,
        times=words.times,
        decibels=words.decibels,
        metric=lambda value: words.metric(value, relative=relative),
        drop=lambda value: words.drop(value, relative=relative),
        json=lambda value: json.dumps(value, indent=1),
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    colours = {entry.name: index % plots.COLOURS for index, entry in enumerate(entries)}
    return template.render(
        facts=facts,
        colours=colours,
        figures=_figures(facts, entries, colours),
        style=style(),
        drops=drops.section(facts["drop_report"]) if facts.get("drop_report") else "",
    )


def style() -> str:
    """Return the style sheet of every page."""
    return STYLE.read_text(encoding="utf-8")


def _figures(
    facts: Mapping[str, Any], entries: Sequence[Entry], colours: Mapping[str, int]
) -> list[tuple[str, str, str]]:
    """Return (title, caption, SVG) of each plot that there is data for."""
    figures = []
    measured = [e for e in entries if e.latency is not None and e.metric is not None]
    if measured:
        figures.append(_accuracy(facts, measured, colours))
    sized = [e for e in entries if e.size_bytes is not None]
    if sized:
        series = [plots.Series(e.name, [e.size_bytes or 0], colours[e.name], e.kept) for e in sized]
        figures.append(("Size", "The artifact's file.", plots.bars(series, text=words.size, label="size")))
    sampled = [e for e in measured if e.latency and e.latency.samples_ms]
    if sampled:
        series = [
            plots.Series(e.name, e.latency.samples_ms, colours[e.name], e.kept) for e in sampled if e.latency
        ]
        figures.append(_latency(facts, series))
    if len(facts["profile"]) > 1:
        figures.append(_profile(facts, colours))
    return figures


def _accuracy(
    facts: Mapping[str, Any], entries: Sequence[Entry], colours: Mapping[str, int]
) -> tuple[str, str, str]:
    name, relative = facts["metric"]["name"], facts["metric"]["relative"]
    points = [
        plots.Point(e.name, e.latency.p50_ms, e.metric, colours[e.name], e.kept)
        for e in entries
        if e.latency is not None and e.metric is not None
    ]
    limit = _limit(facts)
    text: Callable[[float], str] = (lambda v: f"{v:.3g}") if relative else (lambda v: f"{v * 100:.4g} %")
    better = "up" if facts["metric"]["higher_is_better"] else "down"
    caption = f"Better is {better} and to the left."
    plot = plots.scatter(
        points,
        x_label="median latency, ms",
        y_label=name,
        y_text=text,
        limit=None if limit is None else (limit, "allowed"),
        y_most=None if relative else 1.0,
    )
    return f"{name.capitalize()} and latency", caption, plot


def _limit(facts: Mapping[str, Any]) -> float | None:
    baseline, allowed = facts["baseline"]["metric"]["value"], facts["budget"]["max_drop"]
    if baseline is None:
        return None
    step = allowed * abs(baseline) if facts["metric"]["relative"] else allowed
    return baseline - step if facts["metric"]["higher_is_better"] else baseline + step


def _latency(facts: Mapping[str, Any], series: Sequence[plots.Series]) -> tuple[str, str, str]:
    timed = facts["baseline"]["latency_ms"]
    threads = "one thread" if timed["threads"] == 1 else f"{timed['threads']} threads"
    caption = f"Every run at batch {timed['batch']} on {threads}, in interleaved rounds."
    return "Latency", caption, plots.distributions(series, label="latency, ms")


def _profile(facts: Mapping[str, Any], colours: Mapping[str, int]) -> tuple[str, str, str]:
    colour = colours[facts["delivered"]["name"]]
    series = [
        plots.Series(f"batch {p['batch']}", [p["latency_ms"] / p["batch"]], colour, False)
        for p in facts["profile"]
    ]
    plot = plots.bars(series, text=words.milliseconds, label="time per row")
    return "Batches", "Median time per row of the delivered model.", plot
