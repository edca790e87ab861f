"""Weight-only INT8: a quarter of the size without calibration data; activations stay in float."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ...graph.upgrade import CannotUpgradeError, upgrade
from ...model import Model
from ...quantize.uncalibrated.weights import AXIS_OPSET, Selection, store_as_integers
from .. import Context, Pass

NEWEST = 27  # the last whose DequantizeLinear ONNX Runtime 1.32 computes


@dataclass(frozen=True)
class Int8WeightsOptions:
    """`smallest`: elements below which a constant stays in float; `exclude`: nodes whose weights stay so.

    `packed` lets ONNX Runtime multiply by the integers in MatMul: faster than float for a row at a time (a language
    model that writes), slower for many rows. Otherwise the speed is float's.
    """

    smallest: int = 1024
    exclude: tuple[str, ...] = ()
    packed: bool = False


def run(model: Model, options: Int8WeightsOptions, context: Context) -> Model:
    """Return the model with int8 weights, one scale per output channel, in subgraphs too.

    Raises InputError for weights that are not finite.
    """
    if not options.packed:
        return store_as_integers(model, Selection(options.smallest, frozenset(options.exclude)))
    feeds = None if context.calibration is None else next(context.calibration(), None)
    with suppress(CannotUpgradeError):
        model = upgrade(model, AXIS_OPSET, feeds=feeds, newest=NEWEST)
    return store_as_integers(model, Selection(options.smallest, frozenset(options.exclude), packed=True))


INT8_WEIGHTS = Pass("int8-weights", Int8WeightsOptions, run)
