"""Draw this machine's latency staircases as one picture for the documentation.

    python -m benchmarks.pruning.staircase_plot docs/images/staircase.svg [--kinds conv pointwise] [--widest 96]

For each engine and precision: the time of a pair of layers, to a number of channels and back, against that of 64
channels. What would be in proportion is the straight line. The tables are measured first, unless they were before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from farrier import staircase
from farrier_converters.pruning.staircase.table import effective

from .staircase_prediction import ENGINES, PRECISIONS

WIDTH, HEIGHT, MARGIN, GAP = 420, 240, 44, 24  # of one panel, in pixels
REFERENCE = 64  # channels
COLOURS = ("#1f5fa8", "#b3541e")


def panel(
    left: float, top: float, title: str, widest: int, lines: Sequence[Sequence[float]]
) -> Iterator[str]:
    """Yield one panel's elements; each line has a value for 1, 2, ... channels."""
    most = max(max(line) for line in lines)

    def at(width: float, value: float) -> str:
        x = left + MARGIN + (WIDTH - MARGIN) * width / widest
        return f"{x:.1f},{top + HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value / most:.1f}"

    yield f'<text x="{left + MARGIN}" y="{top + 20}" font-weight="bold">{title}</text>'
    for width in range(16, widest + 1, 16):
        x, y = at(width, 0).split(",")
        high = at(width, most).split(",")[1]
        yield f'<line x1="{x}" y1="{y}" x2="{x}" y2="{high}" stroke="#ddd"/>'
        yield f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{width}</text>'
    for value in (0.5, 1.0, 1.5, 2.0):
        if value <= most:
            x, y = at(0, value).split(",")
            yield f'<text x="{float(x) - 6:.1f}" y="{float(y) + 4:.1f}" text-anchor="end">{value:g}</text>'
    ends = at(0, 0), at(widest, widest / REFERENCE)
    yield f'<polyline points="{" ".join(ends)}" fill="none" stroke="#999" stroke-dasharray="4 3"/>'
    for line, colour in zip(lines, COLOURS, strict=False):
        points = " ".join(at(width, value) for width, value in enumerate(line, 1))
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def costs(engine: str, precision: str, kind: str) -> Callable[[int], float]:
    """Return the cost of a number of channels against that of REFERENCE."""
    curve = staircase(engine, precision).curve(kind)

    def both(width: int) -> float:
        return effective(curve.outputs, width) + effective(curve.inputs, width)

    return lambda width: both(width) / both(REFERENCE)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("path", type=Path)
    arguments.add_argument("--kinds", nargs="+", default=["conv", "pointwise"])
    arguments.add_argument("--widest", type=int, default=96)
    given = arguments.parse_args()
    parts = []
    for row, engine in enumerate(ENGINES):
        for column, kind in enumerate(given.kinds):
            found = [costs(engine, precision, kind) for precision in PRECISIONS]
            lines = [[cost(width) for width in range(1, given.widest + 1)] for cost in found]
            left, top = column * (WIDTH + GAP), row * HEIGHT
            parts += panel(left, top, f"{engine}, {kind}", given.widest, lines)
    legend = "".join(
        f'<text x="{MARGIN + 90 * i}" y="{2 * HEIGHT + 6}" fill="{colour}">{precision}</text>'
        for i, (precision, colour) in enumerate(zip(PRECISIONS, COLOURS, strict=True))
    )
    size = f'width="{len(given.kinds) * (WIDTH + GAP)}" height="{2 * HEIGHT + 16}"'
    body = "\n".join(parts)
    given.path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n{legend}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
