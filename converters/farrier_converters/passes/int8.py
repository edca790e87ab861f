"""Static INT8 quantization: QDQ nodes, per-channel weights, ranges from a stream of calibration data."""

from __future__ import annotations

from dataclasses import dataclass, field

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Arithmetic

from ..graph.edit import Graph
from ..graph.upgrade import CannotUpgradeError, upgrade
from ..model import Model, opset
from ..quantize import rules
from ..quantize.calibrate import CalibrationSettings, observe
from ..quantize.observe import METHODS
from ..quantize.placement import place
from ..quantize.rewrite import QdqWriter, set_reason
from ..quantize.speed.fit import fit
from . import Context, Pass

SAFE = Arithmetic("u8", weight_bits=7)  # right on every x86 processor; more bits would saturate on some
OPSET = 13  # the first whose DequantizeLinear knows an axis


@dataclass(frozen=True)
class Int8Options:
    """How activations are ranged (see `Observer.range`), and which nodes (by name) stay in float.

    `stem` False leaves convolutions of at most four input channels in float: engines that pack channels in
    fours and eights run some models faster so (a face detector and a digits network by a tenth, a ResNet20 not: one
    thread of ONNX Runtime 1.32 with AVX2), and the first layer is often the most sensitive one.
    `fit` shapes the graph for ONNX Runtime's kernels on x86: operators that are slower in integers (depthwise
    convolutions of few channels, stems) stay in float by a cost table, and channels are padded to the numbers that
    integer kernels want. For signed activations, whose kernels the table does not know, it leaves the stem in float.
    """

    method: str = "mse"
    percentile: float = 99.999
    exclude: tuple[str, ...] = ()
    stem: bool = True
    fit: bool = False
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)


def run(model: Model, options: Int8Options, context: Context) -> Model:
    """Return the model with Q/DQ nodes where integers pay; inputs and outputs keep their types.

    Clean and fuse first: batch norms left on their own stay in float. A model in which nothing can be integer
    comes back in float, with the reasons in its nodes. Raises InputError for weights, activations or data that
    cannot be used, UsageError for missing data.
    """
    if options.method not in METHODS:
        raise UsageError(f"unknown range method {options.method!r}; choose one of: {', '.join(METHODS)}")
    feeds = None if context.calibration is None else next(context.calibration(), None)
    try:
        model = upgrade(model, OPSET, feeds=feeds)
    except CannotUpgradeError as error:
        return _left_in_float(model, rules.OPSET.format(version=opset(model.proto), why=error))
    graph = Graph(model)
    exclude, slower = frozenset(options.exclude), frozenset[str]()
    known = context.arithmetic is None or context.arithmetic.activations == "u8"
    if options.fit and known:
        graph, slower = fit(graph, exclude=exclude, stem=options.stem)
    stem = options.stem and (known or not options.fit)
    plan = place(graph, exclude=exclude, stem=stem, slower=slower)
    observers = observe(
        graph.build(),
        [name for name in plan.points if name not in plan.bounds],
        batches=context.calibration,
        progress=context.progress,
        settings=options.calibration,
        known=context.statistics,
    )
    ranges = {n: o.range(options.method, percentile=options.percentile) for n, o in observers.items()}
    return QdqWriter(graph, plan, context.arithmetic or SAFE).write(ranges)


def _left_in_float(model: Model, reason: str) -> Model:
    graph = Graph(model)
    for node in graph.nodes:
        set_reason(node, reason)
    return graph.build()


INT8 = Pass("int8", Int8Options, run)
