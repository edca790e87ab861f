"""Write a quantized graph in fewer bytes; ONNX Runtime computes the same bits from it."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.compact.shrink import shrink
from ...model import Model
from .. import Context, Pass


@dataclass(frozen=True)
class ShrinkOptions:
    """No options."""


def run(model: Model, _options: ShrinkOptions, _context: Context) -> Model:
    """Return the model without zero points of zero, copies, default attributes and long generated names."""
    return shrink(model)


SHRINK = Pass("shrink", ShrinkOptions, run)
