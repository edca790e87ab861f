"""Plots as inline SVG: drawn by hand, coloured by the page's style sheet, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 16, 40
ROW = 34  # height of a bar with its gap
LABEL = 14  # height of a label
BINS = 48
STRAGGLER = 3.0  # a histogram ends at this many times the slowest median
COLOURS = 6  # classes c0 ... c5 of the style sheet


@dataclass(frozen=True)
class Point:
    """One candidate in a plot; `colour` numbers a class of the style sheet."""

    name: str
    x: float
    y: float
    colour: int
    kept: bool


@dataclass(frozen=True)
class Series:
    """One candidate's sample or single value."""

    name: str
    values: Sequence[float]
    colour: int
    kept: bool


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers from `low` to `high`."""
    span = max(high - low, 1e-12)
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def scatter(
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    y_text: Callable[[float], str],
    limit: tuple[float, str] | None = None,
    y_most: float | None = None,
) -> str:
    """Return a scatter plot; `limit` is a horizontal line with its label, `y_most` the most that y can be."""
    ys = [p.y for p in points] + ([limit[0]] if limit else [])
    pad = max((max(ys) - min(ys)) * 0.15, abs(max(ys)) * 1e-3, 1e-9)
    low, high = min(ys) - pad, max(ys) + pad
    x_high = max(p.x for p in points) * 1.15
    x_at = _scale(0, x_high, LEFT, WIDTH - RIGHT)
    if y_most is not None:
        high = min(high, max(y_most, *ys))
    y_at = _scale(low, high, HEIGHT - BOTTOM, TOP + LABEL * len(points))  # room for every label above
    parts = [_axes(x_high, x_at, x_label)]
    for tick in ticks(low, high, 4):
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{escape(y_text(tick))}</text>')
    if limit:
        y = y_at(limit[0])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end limit" x="{WIDTH - RIGHT}" y="{y - 5:.1f}">{escape(limit[1])}</text>')
    parts += _labelled(points, x_at, y_at)
    return _svg(HEIGHT, parts, f"{y_label} against {x_label}")


def bars(series: Sequence[Series], *, text: Callable[[float], str], label: str) -> str:
    """Return horizontal bars from zero, one per series, with their values written out."""
    height = ROW * len(series) + 6
    high = max(s.values[0] for s in series)
    to = _scale(0, high, 0, WIDTH - RIGHT - 74)
    parts = []
    for row, s in enumerate(series):
        y = row * ROW + 15
        width = max(2.0, to(s.values[0]))
        parts.append(f'<text x="2" y="{y - 2}">{escape(s.name)}</text>')
        kept = " kept" if s.kept else ""
        parts.append(
            f'<rect class="c{s.colour}{kept}" x="2" y="{y + 2}" width="{width:.1f}" height="11" rx="2"/>'
        )
        parts.append(f'<text x="{width + 8:.1f}" y="{y + 12}">{escape(text(s.values[0]))}</text>')
    return _svg(height, parts, label)


def distributions(series: Sequence[Series], *, label: str) -> str:
    """Return one histogram per series on a common axis from zero, cut where only stragglers are."""
    slowest = max(float(np.percentile(s.values, 99)) for s in series)
    high = min(slowest * 1.05, max(float(np.median(s.values)) for s in series) * STRAGGLER)
    row = 52
    height = row * len(series) + BOTTOM
    x_at = _scale(0, high, 8, WIDTH - RIGHT)
    parts = [_axes(high, x_at, label, left=8, height=height)]
    for index, s in enumerate(series):
        base = row * (index + 1)
        counts, edges = np.histogram(s.values, bins=BINS, range=(0, high))
        peak = max(int(counts.max()), 1)
        path = [f"M{x_at(edges[0]):.1f},{base}"]
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
            y = base - 34 * count / peak
            path.append(f"L{x_at(left):.1f},{y:.1f}L{x_at(right):.1f},{y:.1f}")
        path.append(f"L{x_at(edges[-1]):.1f},{base}Z")
        parts.append(f'<path class="c{s.colour}{" kept" if s.kept else ""}" d="{"".join(path)}"/>')
        median = x_at(float(np.median(s.values)))
        parts.append(
            f'<line class="median" x1="{median:.1f}" x2="{median:.1f}" y1="{base - 38}" y2="{base}"/>'
        )
        side = "" if median < WIDTH * 0.75 else ' class="end"'
        offset = 5 if median < WIDTH * 0.75 else -5
        parts.append(f'<text{side} x="{median + offset:.1f}" y="{base - 38 + 10}">{escape(s.name)}</text>')
    return _svg(height, parts, label)


def _axes(
    x_high: float, x_at: Callable[[float], float], label: str, *, left: float = LEFT, height: float = HEIGHT
) -> str:
    base = height - BOTTOM
    parts = [f'<line class="axis" x1="{left}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for tick in ticks(0, x_high):
        parts.append(f'<text class="middle" x="{x_at(tick):.1f}" y="{base + 15}">{tick:.4g}</text>')
    middle = (left + WIDTH - RIGHT) / 2
    parts.append(f'<text class="middle label" x="{middle}" y="{height - 6}">{escape(label)}</text>')
    return "".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _labelled(
    points: Sequence[Point], x_at: Callable[[float], float], y_at: Callable[[float], float]
) -> list[str]:
    """Return the points with their names above, each on a line of its own where names would touch."""
    parts, taken = [], []
    for p in sorted(points, key=lambda p: p.x):
        x, y = x_at(p.x), y_at(p.y)
        half = 3.5 * len(p.name) + 4
        at = min(max(x, LEFT + half), WIDTH - RIGHT - half)
        line = y - 14
        while any(
            abs(line - other) < LABEL - 1 and abs(at - x0) < half + half0 for x0, other, half0 in taken
        ):
            line -= LABEL
        taken.append((at, line, half))
        kept = " kept" if p.kept else ""
        parts.append(f'<line class="leader" x1="{x:.1f}" x2="{at:.1f}" y1="{y:.1f}" y2="{line + 3:.1f}"/>')
        parts.append(f'<circle class="c{p.colour}{kept}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
        parts.append(f'<text class="name" x="{at:.1f}" y="{line:.1f}">{escape(p.name)}</text>')
    return parts


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{body}</svg>'


def curves(values: Mapping[str, Sequence[float]], *, x_label: str, y_label: str) -> str:
    """Return lines over 1, 2, 3, ..., one per name, each with its name at its end; only finite values are drawn."""
    finite = [v for line in values.values() for v in line if math.isfinite(v)] or [0.0]
    pad = max((max(finite) - min(finite)) * 0.1, abs(max(finite)) * 1e-3, 1e-9)
    longest = max(len(line) for line in values.values())
    x_at = _scale(0, longest, LEFT, WIDTH - RIGHT)
    y_at = _scale(min(finite) - pad, max(finite) + pad, HEIGHT - BOTTOM, TOP)
    parts = [_axes(longest, x_at, x_label)]
    for tick in ticks(min(finite) - pad, max(finite) + pad, 4):
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{tick:.4g}</text>')
    for number, (name, line) in enumerate(values.items()):
        drawn = [(x_at(i), y_at(v)) for i, v in enumerate(line, start=1) if math.isfinite(v)]
        if not drawn:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        colour = f"c{(number + 1) % COLOURS}"
        parts.append(
            f'<polyline class="{colour}" points="{path}" style="fill:none;stroke:currentColor" stroke-width="2"/>'
        )
        parts += [f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in drawn]
        parts.append(
            f'<text class="{colour} end" x="{WIDTH - RIGHT}" y="{TOP + LABEL * number + 4}">{escape(name)}</text>'
        )
    return _svg(HEIGHT, parts, f"{y_label} against {x_label}")
