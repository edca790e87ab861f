"""Dynamic INT8: int8 weights, and activations quantized while the model runs; no calibration data."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.edit import Graph
from ..graph.upgrade import CannotUpgradeError, upgrade
from ..model import Model, opset
from ..quantize import rules
from ..quantize.reasons import set_reason
from ..quantize.uncalibrated.dynamic import OPSET, compute_dynamically
from ..quantize.uncalibrated.weights import Selection, store_as_integers
from . import Context, Pass

SAFE_BITS = 7  # right on every x86 processor


@dataclass(frozen=True)
class Int8DynamicOptions:
    """`smallest`: elements of a weight matrix below which float is as fast; `exclude`: nodes that stay in float.

    `store_rest`: see `Int8Options`.
    """

    smallest: int = 4096
    exclude: tuple[str, ...] = ()
    store_rest: bool = True


def run(model: Model, options: Int8DynamicOptions, context: Context) -> Model:
    """Return the model with MatMul, Gemm and LSTM of constant weights in integers, in subgraphs too.

    Raises InputError for weights that are not finite.
    """
    feeds = None if context.calibration is None else next(context.calibration(), None)
    try:
        model = upgrade(model, OPSET, feeds=feeds)
    except CannotUpgradeError as error:
        graph = Graph(model)
        for node in graph.nodes:
            set_reason(node, rules.OPSET.format(version=opset(model.proto), why=error))
        return graph.build()
    bits = SAFE_BITS if context.arithmetic is None else context.arithmetic.weight_bits
    exclude = frozenset(options.exclude)
    found = compute_dynamically(model, smallest=options.smallest, bits=bits, exclude=exclude)
    return store_as_integers(found, Selection(exclude=exclude, rest=True)) if options.store_rest else found


INT8_DYNAMIC = Pass("int8-dynamic", Int8DynamicOptions, run)
