"""Charts as inline SVG, drawn on the server: axes, units and readable numbers, colours from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from ..fleet.metrics import Curve

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 12, 24
GAP_SLICES = 4  # a line is broken where so many slices hold nothing
TICKS_Y = 4
STEPS_S = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)


@dataclass(frozen=True)
class Line:
    """One line of a chart: a name for the legend, a class for its colour, and the curve."""

    name: str
    css: str
    curve: Curve


def chart(
    lines: Sequence[Line],
    *,
    since_ns: int,
    until_ns: int,
    words: Callable[[float], str],
    title: str,
    unit: float = 1.0,
) -> str:
    """Return an SVG of lines over wall time.

    `words` writes the numbers of the vertical axis; they are round multiples of `unit`.
    """
    values = [value for line in lines for value in line.curve.values]
    if not values:
        return f'<p class="empty">{escape(title)}: nothing measured in this span</p>'
    ticks = [tick * unit for tick in nice_ticks(max(values) / unit)]
    span, top = until_ns - since_ns, ticks[-1]

    def x(at_ns: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at_ns - since_ns) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts += [_grid_line(y(tick), words(tick)) for tick in ticks]
    for at_ns, label in time_ticks(since_ns, until_ns):
        parts.append(f'<text class="tick middle" x="{x(at_ns):.1f}" y="{HEIGHT - 7}">{label}</text>')
    for line in lines:
        parts += [_path(piece, line.css, x, y) for piece in _pieces(line.curve)]
        if line.curve.values:
            at, value = line.curve.times_ns[-1] + line.curve.step_ns / 2, line.curve.values[-1]
            now = f"{line.name} {words(value)}"
            spot = f'cx="{min(x(at), WIDTH - RIGHT):.1f}" cy="{y(value):.1f}" r="3"'
            parts.append(f'<circle class="{line.css}" {spot}><title>{escape(now)}</title></circle>')
    return "".join([*parts, "</svg>"])


def sparkline(curve: Curve, *, since_ns: int, until_ns: int, title: str) -> str:
    """Return a small line without axes; empty when there are not two values to join."""
    if len(curve.values) < 2:
        return ""
    width, height, top = 160, 36, max(curve.values) or 1.0

    def x(at_ns: float) -> float:
        return width * (at_ns - since_ns) / (until_ns - since_ns)

    def y(value: float) -> float:
        return height - 2 - (height - 4) * value / top

    paths = "".join(_path(piece, "p99", x, y) for piece in _pieces(curve))
    head = f'<svg class="spark" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
    return f'{head} aria-label="{escape(title)}">{paths}</svg>'


def nice_ticks(highest: float) -> list[float]:
    """Return about TICKS_Y round values from 0 to at least `highest` (1, 2 or 5 times a power of ten apart)."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / TICKS_Y
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [step * index for index in range(max(1, math.ceil(highest / step - 1e-9)) + 1)]


def time_ticks(since_ns: int, until_ns: int) -> list[tuple[int, str]]:
    """Return round local times within a span, at most six of them, each with its label."""
    span_s = (until_ns - since_ns) / 1e9
    step = next((step for step in STEPS_S if span_s / step <= 5), STEPS_S[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    offset = datetime.fromtimestamp(since_ns / 1e9).astimezone().utcoffset()
    shift = int(offset.total_seconds()) if offset else 0
    first = -(-(since_ns // 10**9 + shift) // step) * step - shift
    margin = span_s * 0.04  # a label needs room on both sides
    return [
        (at * 10**9, datetime.fromtimestamp(at).astimezone().strftime(form))
        for at in range(first, until_ns // 10**9 + 1, step)
        if since_ns / 1e9 + margin <= at <= until_ns / 1e9 - margin
    ]


def _grid_line(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="tick end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{escape(label)}</text>'


def _pieces(curve: Curve) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = []
    last = -math.inf
    for at, value in zip(curve.times_ns, curve.values, strict=True):
        if at - last > GAP_SLICES * curve.step_ns:
            pieces.append([])
        pieces[-1].append((at + curve.step_ns / 2, value))
        last = at
    return pieces


def _path(
    piece: Sequence[tuple[float, float]], css: str, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    if len(piece) == 1:
        at, value = piece[0]
        return f'<circle class="{css}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="1.5"/>'
    points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in piece)
    return f'<polyline class="{css}" points="{points}"/>'
