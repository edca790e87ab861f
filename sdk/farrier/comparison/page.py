"""A comparison as one HTML page without any outside resource."""

from __future__ import annotations

from pathlib import Path

from ..report import drops, page, words
from .result import Comparison

TEMPLATE = Path(__file__).with_name("page.html")


def html(found: Comparison) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["db"] = drops.decibels
    environment.filters["metric"] = lambda value: words.metric(value, relative=found.judged.relative)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(found=found, style=page.style(), drops=drops.section(found.report))
