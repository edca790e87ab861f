"""Learned rounding of weights (AdaRound): for few bits, from calibration data, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farrier_contracts.errors import UsageError

from ..model import Model
from . import Context, Pass
from .int8 import Int8Options
from .qat import int8_options, prepare


@dataclass(frozen=True)
class AdaRoundOptions:
    """What is quantized and how (`int8`), and how rounding is learned (fields of `AdaRoundSettings`)."""

    int8: Int8Options | Mapping[str, Any] = field(default_factory=Int8Options)
    rounding: Mapping[str, Any] = field(default_factory=dict)


def run(model: Model, options: AdaRoundOptions, context: Context) -> Model:
    """Return the model in integers, each weight rounded up or down as its layer's results want it.

    Raises UsageError without calibration data, InputError for what cannot be trained, MissingToolError without PyTorch.
    """
    if context.calibration is None:
        raise UsageError("learned rounding needs calibration data; give some with --data or --calib")
    from ..training.adaround import AdaRoundSettings, adaround

    quantization, _factors = prepare(model, int8_options(options.int8), context)
    settings = AdaRoundSettings(**options.rounding)
    return adaround(quantization, context.calibration, settings, progress=context.progress)


ADAROUND = Pass("adaround", AdaRoundOptions, run)
