"""The widths of all layers before and after, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .result import LayerChange

WIDTH = 420
ROW = 15  # height of a layer
LABEL = 130  # room for names
SHOWN = 60  # layers at most; of more, those that changed most are shown
NAME = 20  # characters


def drawn(layers: Sequence[LayerChange]) -> str:
    """Return bars of the output channels of each layer; the part that is left is filled."""
    chosen = layers
    if len(layers) > SHOWN:
        ranked = sorted(range(len(layers)), key=lambda i: layers[i].outputs[1] / max(layers[i].outputs[0], 1))
        keep = set(ranked[:SHOWN])
        chosen = [layer for i, layer in enumerate(layers) if i in keep]
    most = max((layer.outputs[0] for layer in chosen), default=1)
    room = WIDTH - LABEL - 70
    parts = []
    for row, layer in enumerate(chosen):
        y = row * ROW + 2
        # by the square root, so that layers of 16 channels are seen beside some of 1024
        whole, left = (room * math.sqrt(count / most) for count in layer.outputs)
        name = layer.name if len(layer.name) <= NAME else "…" + layer.name[1 - NAME :]
        parts.append(f'<text class="end" x="{LABEL - 6}" y="{y + 9}">{escape(name)}</text>')
        parts.append(
            f'<rect class="c0" x="{LABEL}" y="{y}" width="{max(whole, 1):.1f}" height="{ROW - 4}" rx="2" '
            'style="fill-opacity:.3"/>'
        )
        if left:
            parts.append(
                f'<rect class="c3" x="{LABEL}" y="{y}" width="{max(left, 1):.1f}" height="{ROW - 4}" rx="2"/>'
            )
        before, after = layer.outputs
        text = f"{before}" if before == after else f"{before} → {after}"
        parts.append(f'<text x="{LABEL + whole + 5:.1f}" y="{y + 9}">{text}</text>')
    height = ROW * len(chosen) + 4
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="widths before and after">'
        f"{''.join(parts)}</svg>"
    )
