"""Leave out repeated layers, or a share of all channels: a smaller network that starts from the weights of this one."""

from __future__ import annotations

from dataclasses import dataclass

from ..distillation.students import made
from ..model import Model
from . import Context, Pass


@dataclass(frozen=True)
class StudentOptions:
    """What stays: `layers` (a number, "half", or a share like "33%"), `width` (a share of all channels), or both.

    `way` says which layers stay, see `distillation.students`.
    """

    layers: int | str | None = None
    width: float | str | None = None
    way: str = "alternate"


def run(model: Model, options: StudentOptions, context: Context) -> Model:
    """Return the smaller network; it has to learn before it is of use. Raises UsageError, InputError."""
    return made(
        model,
        layers=options.layers,
        width=options.width,
        way=options.way,
        batches=None if context.calibration is None else context.calibration(),
        progress=context.progress,
    ).model


STUDENT = Pass("student", StudentOptions, run)
