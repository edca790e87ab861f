"""A pruning as one HTML page without any outside resource."""

from __future__ import annotations

from pathlib import Path

from ..report import page, plots, words
from .result import Pruning
from .widths import drawn

TEMPLATE = Path(__file__).with_name("page.html")
DENSE, PRUNED = 0, 3  # colours


def html(found: Pruning) -> str:
    """Return the page."""
    import jinja2

    relative = found.metric is not None and found.metric.relative
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        ms=words.milliseconds,
        size=words.size,
        times=words.times,
        metric=lambda value: words.metric(value, relative=relative),
        count=lambda value: f"{value:,}",
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    changed = [layer for layer in found.layers if layer.outputs[0] != layer.outputs[1]]
    return template.render(found=found, changed=changed, style=page.style(), figures=_figures(found))


def _figures(found: Pruning) -> list[tuple[str, str, str]]:
    """Return (title, caption, SVG) of each plot."""
    figures = [("Widths", "Output channels of each layer: before, and what is left.", drawn(found.layers))]
    if found.before.latency_ms is not None and found.after.latency_ms is not None:
        caption = f"Median of one run at batch 1, one thread, {found.engine} in {found.precision}."
        figures.append(
            ("Time", caption, _pair(found.before.latency_ms, found.after.latency_ms, words.milliseconds))
        )
    if found.metric is not None and found.before.metric is not None and found.after.metric is not None:
        relative = found.metric.relative
        figures.append(
            (
                found.metric.name.capitalize(),
                "Over the rows that judge.",
                _pair(found.before.metric, found.after.metric, lambda v: words.metric(v, relative=relative)),
            )
        )
    work = _pair(found.before.multiply_adds / 1e6, found.after.multiply_adds / 1e6, lambda v: f"{v:.3g} M")
    figures.append(("Multiply-adds", "Of one row.", work))
    curves = {"training": found.history.get("losses"), "validation": found.history.get("validation_losses")}
    lines = {name: values for name, values in curves.items() if values}
    if lines:
        figures.append(
            ("Loss", "By epoch of fine-tuning.", plots.curves(lines, x_label="epoch", y_label="loss"))
        )
    return figures


def _pair(before: float, after: float, text) -> str:  # noqa: ANN001
    series = [
        plots.Series("dense", [max(before, 0)], DENSE, False),
        plots.Series("pruned", [max(after, 0)], PRUNED, True),
    ]
    return plots.bars(series, text=text, label="dense and pruned")
