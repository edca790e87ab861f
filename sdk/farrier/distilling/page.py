"""A distillation as one HTML page without any outside resource."""

from __future__ import annotations

from pathlib import Path

from ..report import page, plots, words
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
    return template.render(found=found, style=page.style(), figures=_figures(found))


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
    return figures + _training(found)


def _training(found: Result) -> list[tuple[str, str, str]]:
    history = found.history
    curves = {"training": history["losses"], "validation": history["validation_losses"]}
    curves = {name: values for name, values in curves.items() if values}
    if not curves:
        return []
    drawn = plots.curves(curves, x_label="epoch", y_label="loss")
    figures = [("Loss", "The student's, by epoch: on the rows it learns from, and on those held out.", drawn)]
    if history["scores"]:
        drawn = plots.curves(
            {f"validation {history['metric']}": history["scores"]}, x_label="epoch", y_label="score"
        )
        figures.append(("Held-out score", "The student's, by epoch; the best epoch was kept.", drawn))
    return figures
