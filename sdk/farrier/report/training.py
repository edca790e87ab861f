"""A training's history as curves: a part of a page, or a page of its own without any outside resource."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from . import plots
from .page import style

HEIGHT, BOTTOM, TOP, LEFT = 230, 38, 26, 52
LETTER = 6.6  # width of a letter in a legend
SHARES = ("accuracy", "top5", "f1", "auc")  # metrics that are shown in per cent


@dataclass(frozen=True)
class Curve:
    """One value per epoch from epoch `first` on; epoch 0 is before training. `colour` as in `plots`."""

    name: str
    values: Sequence[float]
    colour: int
    first: int = 1

    @property
    def points(self) -> list[tuple[int, float]]:
        """The (epoch, value) pairs that are finite numbers."""
        return [(self.first + i, v) for i, v in enumerate(self.values) if math.isfinite(v)]


def page(history: Mapping[str, Any], *, title: str = "Training") -> str:
    """Return an HTML page of its own; `history` is what `training.fit.History.to_dict` gives."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – Farrier</title>\n<style>\n{style()}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{section(history)}</main>\n</body>\n</html>\n"
    )


def write(history: Mapping[str, Any], path: Path, *, title: str = "Training") -> None:
    """Write the page to a file."""
    path.write_text(page(history, title=title), encoding="utf-8")


def section(history: Mapping[str, Any]) -> str:
    """Return the plots of a history, each with a caption, and what was said about the training."""
    parts = [f'<p class="quiet">{escape(_summary(history))}</p>\n']
    if history.get("note"):
        parts.append(f'<ul class="warnings"><li>{escape(str(history["note"]))}</li></ul>\n')
    figures = "".join(
        f"<figure><h2>{escape(title)}</h2><figcaption>{escape(caption)}</figcaption>{svg}</figure>\n"
        for title, caption, svg in _figures(history)
    )
    return "".join([*parts, f'<div class="plots">\n{figures}</div>\n'])


def curves(
    lines: Sequence[Curve], *, text: Callable[[float], str], label: str, mark: int | None = None
) -> str:
    """Return curves over epochs with a legend; `mark` is an epoch whose points stand out."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    left, right, base = LEFT, plots.WIDTH - plots.RIGHT, HEIGHT - BOTTOM
    epochs = sorted({epoch for epoch, _ in points})
    low, high = _bounds([value for _, value in points])

    def x_at(epoch: float) -> float:
        return left + (epoch - epochs[0]) / max(epochs[-1] - epochs[0], 1) * (right - left)

    def y_at(value: float) -> float:
        return base - (value - low) / (high - low) * (base - TOP)

    parts = []
    for tick in plots.ticks(low, high, 4):
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{left - 6}" y="{y + 4:.1f}">{escape(text(tick))}</text>')
    shown = sorted({round(tick) for tick in plots.ticks(epochs[0], epochs[-1], 6)} & set(epochs)) or epochs
    for epoch in shown:
        parts.append(f'<text class="middle" x="{x_at(epoch):.1f}" y="{base + 15}">{epoch}</text>')
    parts.append(f'<text class="middle label" x="{(left + right) / 2}" y="{HEIGHT - 6}">epoch</text>')
    at = float(left)
    for line in lines:
        parts += _line(line, x_at, y_at, text, mark)
        parts.append(
            f'<text class="c{line.colour}" x="{at:.1f}" y="12" {_ink(line)}>{escape(line.name)}</text>'
        )
        at += LETTER * (len(line.name) + 2)
    body = "".join(parts)
    return f'<svg viewBox="0 0 {plots.WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _line(
    line: Curve,
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
    text: Callable[[float], str],
    mark: int | None,
) -> list[str]:
    points = " ".join(f"{x_at(epoch):.1f},{y_at(value):.1f}" for epoch, value in line.points)
    parts = [
        f'<polyline points="{points}" style="fill: none; stroke: var(--c{line.colour}); stroke-width: 2"/>'
    ]
    for epoch, value in line.points:
        kept, radius = (" kept", 5) if epoch == mark else ("", 2.5)
        told = escape(f"{line.name}, epoch {epoch}: {text(value)}")
        parts.append(
            f'<circle class="c{line.colour}{kept}" cx="{x_at(epoch):.1f}" cy="{y_at(value):.1f}" r="{radius}">'
            f"<title>{told}</title></circle>"
        )
    return parts


def _ink(line: Curve) -> str:
    return f'style="fill: var(--c{line.colour})"'


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = max((high - low) * 0.06, abs(high) * 1e-3, 1e-9)
    return low - pad, high + pad


def _figures(history: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    start, best, metric = history.get("start"), history.get("best"), history.get("metric")
    mark = None if best is None else best + 1
    held = ([start[0]] if start else []) + list(history["validation_losses"])
    losses = [Curve("training", history["losses"], 1)]
    if held:
        losses.append(Curve("validation", held, 3, 0 if start else 1))
    found = [("Loss", "The mean over each epoch.", curves(losses, text=_number, label="loss", mark=mark))]
    if metric and history["scores"]:
        scores = ([start[1]] if start and start[1] is not None else []) + list(history["scores"])
        line = Curve("validation", scores, 3, 1 if len(scores) == len(history["scores"]) else 0)
        svg = curves([line], text=lambda v: _score(metric, v), label=metric, mark=mark)
        found.append((metric.capitalize(), "On held-out data, after each epoch.", svg))
    rates = [Curve("learning rate", history["rates"], 2)]
    found.append(
        ("Learning rate", "At each epoch's end.", curves(rates, text=_number, label="learning rate"))
    )
    return [figure for figure in found if figure[2]]


def _summary(history: Mapping[str, Any]) -> str:
    count, seconds = len(history["losses"]), sum(history["seconds"])
    told = f"{count} epoch{'' if count == 1 else 's'} in {seconds:.0f} s"
    best, metric = history.get("best"), history.get("metric")
    if best is None:
        return told
    if best < 0:
        return f"{told}; no epoch was better than the start"
    if metric and history["scores"]:
        return f"{told}; epoch {best + 1} is kept, {metric} {_score(metric, history['scores'][best])}"
    return f"{told}; epoch {best + 1} is kept"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _score(metric: str, value: float) -> str:
    return f"{100 * value:.4g} %" if metric in SHARES else _number(value)
