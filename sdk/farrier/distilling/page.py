"""A distillation as one HTML page without any outside resource."""

from __future__ import annotations

from pathlib import Path

from ..report import page, plots, training, words
from .result import Result

TEMPLATE = Path(__file__).with_name("page.html")


def html(found: Result) -> str:
    """Return the page."""
    import jinja2

    relative = found.metric.relative
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        ms=words.milliseconds, size=words.size, metric=lambda value: words.metric(value, relative=relative)
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    history = training.section({**found.history, "note": None})  # which stands among the notes
    return template.render(found=found, style=page.style(), figures=_figures(found), training=history)


def _figures(found: Result) -> list[tuple[str, str, str]]:
    """Return (title, caption, SVG) of each plot."""
    relative, metric = found.metric.relative, found.metric.name
    colours = {name: number % plots.COLOURS for number, name in enumerate(found.models)}
    points = [
        plots.Point(name, scored.latency_ms, scored.value, colours[name], name == found.delivered)
        for name, scored in found.models.items()
    ]
    figures = [
        (
            f"{metric.capitalize()} against time",
            "One run of one row on this machine, one thread.",
            plots.scatter(
                points,
                x_label="milliseconds a run",
                y_label=metric,
                y_text=lambda value: words.metric(value, relative=relative),
            ),
        )
    ]
    series = [
        plots.Series(name, [scored.bytes], colours[name], name == found.delivered)
        for name, scored in found.models.items()
    ]
    figures.append(("Size", "Bytes of the ONNX file.", plots.bars(series, text=words.size, label="size")))
    return figures
