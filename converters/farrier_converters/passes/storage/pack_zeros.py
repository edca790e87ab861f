"""Store sparse weights as values and distances, of which ONNX Runtime makes the same dense bits on opening."""

from __future__ import annotations

from dataclasses import dataclass

from ...model import Model
from ...sparsity.pack import packed
from .. import Context, Pass


@dataclass(frozen=True)
class PackZerosOptions:
    """No options."""


def run(model: Model, _options: PackZerosOptions, _context: Context) -> Model:
    """Return the model in fewer bytes where constants hold many zeros. Last in a recipe: weights are nodes then."""
    return packed(model)


PACK_ZEROS = Pass("pack-zeros", PackZerosOptions, run)
