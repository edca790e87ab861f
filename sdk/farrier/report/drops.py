"""The drop report as a part of a page: causes, a plot over the layers, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import plots

TEMPLATE = Path(__file__).with_name("drops.html")
EQUAL_DB = 150  # stands for no error at all
SHOWN_DB = 80  # the plot's upper end
HEIGHT, BOTTOM, TOP = 240, 30, 14


def section(report: Mapping[str, Any]) -> str:
    """Return the HTML of a drop report's document."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["db"] = decibels
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(report=report, plot=plot(report["layers"]))


def decibels(value: float) -> str:
    """Return "31.2 dB", or that there is no difference."""
    return "equal" if value >= EQUAL_DB else f"{value:.1f} dB"


def plot(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return both signal-to-noise ratios over the layers, in order, above bars of their shares of the loss."""
    left, right = 44, plots.WIDTH - plots.RIGHT
    step = (right - left) / max(len(layers), 1)
    base = HEIGHT - BOTTOM
    low = min([0.0, *(max(layer["snr_db"], -20.0) for layer in layers)])

    def y_at(db: float) -> float:
        return base - (min(max(db, low), SHOWN_DB) - low) / (SHOWN_DB - low) * (base - TOP)

    parts = []
    for tick in plots.ticks(low, SHOWN_DB, 4):
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{left - 6}" y="{y + 4:.1f}">{tick:.0f} dB</text>')
    most = max((layer["share"] or 0.0 for layer in layers), default=0.0) or 1.0
    for index, layer in enumerate(layers):
        x, share = left + index * step, layer["share"] or 0.0
        height = share / most * (base - TOP) / 2
        name = escape(f"{layer['layer']}: {share:.1%} of the loss, {decibels(layer['snr_db'])}")
        parts.append(
            f'<rect class="c3" x="{x:.1f}" y="{base - height:.1f}" width="{max(step - 1, 1):.1f}"'
            f' height="{height:.1f}"><title>{name}</title></rect>'
        )
    for key, colour in (("own_snr_db", 2), ("snr_db", 1)):
        points = " ".join(
            f"{left + (i + 0.5) * step:.1f},{y_at(layer[key]):.1f}" for i, layer in enumerate(layers)
        )
        parts.append(
            f'<polyline points="{points}" style="fill: none; stroke: var(--c{colour}); stroke-width: 2"/>'
        )
    parts.append(f'<text x="{left}" y="{HEIGHT - 8}">')
    parts.append('<tspan class="c1">signal to noise</tspan> · <tspan class="c2">its own</tspan> · ')
    parts.append('<tspan class="c3">share of the loss</tspan>, layer after layer</text>')
    svg = "".join(parts)
    label = "signal to noise and share of the loss over the layers"
    return f'<svg viewBox="0 0 {plots.WIDTH} {HEIGHT}" role="img" aria-label="{label}">{svg}</svg>'
