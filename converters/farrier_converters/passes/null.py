"""The null pass: changes nothing. The template to copy."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Model
from . import Context, Pass


@dataclass(frozen=True)
class NullOptions:
    """No options."""


def run(model: Model, _options: NullOptions, _context: Context) -> Model:
    """Return the model as it is."""
    return model


NULL = Pass("null", NullOptions, run)
