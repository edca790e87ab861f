"""Static INT8 quantization: QDQ nodes, per-channel weights, ranges from a stream of calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Arithmetic

from ..graph.compact import fours
from ..graph.edit import Graph
from ..graph.run import large_blocks_mapped
from ..graph.types import infer
from ..graph.upgrade import CannotUpgradeError, upgrade
from ..model import Model, opset
from ..quantize import rules
from ..quantize.calibrate import CalibrationSettings, observe
from ..quantize.edges import wide
from ..quantize.nearest import NearestSettings, distances, nearest
from ..quantize.observe import METHODS, Observer
from ..quantize.placement import STYLES, Placement, place
from ..quantize.repair import centring, evening
from ..quantize.repair.bias import correct, correct_by_means, input_means
from ..quantize.rewrite import NARROW_BITS, QdqWriter, Widths, set_reason
from ..quantize.scales import BITS
from ..quantize.speed.fit import fit
from ..quantize.uncalibrated.weights import Selection, store_as_integers
from . import Context, Pass

SAFE = Arithmetic("u8", weight_bits=7)  # right on every x86 processor; more bits would saturate on some
NEWEST = 27  # the last whose QuantizeLinear ONNX Runtime 1.32 computes
OPSET = 13  # the first whose DequantizeLinear knows an axis


AUTO = "auto"
# what "auto" tries; the first wins where they are about as good
AUTO_METHODS = ("mse", "minmax", "percentile")
# in a context's statistics: what calibration found in the model itself, where its twin is no likeness
ALONE = "\0alone"  # no tensor is called so
SHARES = "\0shares"  # the sizes of channels, by tensor, that `evening.sizes` found
EVEN = "\0even"  # what calibration found where those channels were divided: it rounds otherwise
MEANS = "\0means"  # the means of a twin's channels, by tensor
LIKENESS = 0.5  # of the outputs' variance: an error beyond it is not one of rounding
FEW = NearestSettings(rows=16, values=1 << 21)
WEIGHT_METHODS = (AUTO, "max", "mse")

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Int8Options:
    """How activations are ranged (see `ranges.choose`), and which nodes (by name) stay in float.

    The `method` "auto" quantizes with several of them and keeps the one whose outputs are nearest to float on some
    of the calibration rows: least squared error is best for most, but it cuts off what is rare, and in a detector
    the rare activations are the detections.

    `methods` gives single tensors (by name) a range method of their own.

    `even` divides the channels in front of depthwise convolutions to one size (see `repair.evening`), where weights
    have a scale per channel. `bias_correction` takes mean errors back (see `repair.bias`): where outputs come nearer
    to float so, or, without data, by the means that the twin of the network has.

    `stem` False leaves convolutions of at most four input channels in float: engines that pack channels in
    fours and eights run some models faster so (a face detector and a digits network by a tenth, a ResNet20 not: one
    thread of ONNX Runtime 1.32 with AVX2), and the first layer is often the most sensitive one.
    `fit` shapes the graph for ONNX Runtime's kernels on x86: operators that are slower in integers (depthwise
    convolutions of few channels, stems) stay in float by a cost table, and channels are padded to the numbers that
    integer kernels want. For signed activations, whose kernels the table does not know, it leaves the stem in float.

    `weight_bits` and `activation_bits` are 2 to 8, stored in 8; activations of fewer are clipped to their levels.
    Activations are those that meet weights; what is only added or averaged keeps 8 bits (see `edges.wide`).
    A target that computes exactly with fewer weight bits only keeps its limit. `per_channel`, `symmetric` and
    `power_of_two` are the target's where None. `weight_method`: see `scales.weights`. `narrow` lists nodes (by name or
    first output) whose weights alone have four bits. Weights of four bits take half a byte in the file where the
    graph can be raised to operator set 21. With
    `wide_edges`, the first and the last operators with weights keep 8 bits, of weights (7 where they alone would
    saturate on some processors) and inputs. `store_rest` also
    stores the weights of what computes in float (tables, recurrent layers, what is slower in integers; never what
    `exclude` names) as 8-bit integers, which the engine widens when it opens the file.
    """

    method: str = AUTO
    methods: Mapping[str, str] = field(default_factory=dict)
    percentile: float = 99.999
    exclude: tuple[str, ...] = ()
    stem: bool = True
    fit: bool = False
    weight_bits: int | None = None
    activation_bits: int = 8
    per_channel: bool | None = None
    symmetric: bool | None = None
    power_of_two: bool | None = None
    weight_method: str = "auto"
    even: bool = True
    bias_correction: bool = True
    narrow: tuple[str, ...] = ()
    wide_edges: bool = False
    store_rest: bool = True
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)

    def __post_init__(self) -> None:
        """Raise UsageError for a value that means nothing."""
        for name, known in (("method", (AUTO, *METHODS)), ("weight_method", WEIGHT_METHODS)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"unknown range {name} {getattr(self, name)!r}; choose one of: {', '.join(known)}"
                )
        for name, method in self.methods.items():
            if method not in METHODS:
                raise UsageError(
                    f"unknown range method {method!r} for {name}; choose one of: {', '.join(METHODS)}"
                )
        for name in ("weight_bits", "activation_bits"):
            if getattr(self, name) not in BITS and (name, getattr(self, name)) != ("weight_bits", None):
                raise UsageError(f"{name} has to be 2 to 8, not {getattr(self, name)!r}")

    def arithmetic(self, target: Arithmetic) -> Arithmetic:
        """Return the target's arithmetic with these options laid over it."""
        chosen = {
            "per_channel": self.per_channel,
            "symmetric_activations": self.symmetric,
            "power_of_two_scales": self.power_of_two,
        }
        bits = min(target.weight_bits, self.weight_bits or target.weight_bits)
        return replace(target, weight_bits=bits, **{k: v for k, v in chosen.items() if v is not None})

    def edge_bits(self, target: Arithmetic) -> int:
        """Return the bits of wide edges' weights: where nothing else could saturate on any x86, nor do they."""
        few = (self.weight_bits or 8) < SAFE.weight_bits
        return min(target.weight_bits, SAFE.weight_bits) if few else target.weight_bits


def run(model: Model, options: Int8Options, context: Context) -> Model:
    """Return the model with Q/DQ nodes where integers pay; inputs and outputs keep their types.

    Clean and fuse first: batch norms left on their own stay in float. A model in which nothing can be integer
    comes back in float, with the reasons in its nodes. Raises InputError for weights, activations or data that
    cannot be used, UsageError for missing data.
    """
    if context.statistics is None:
        context = replace(context, statistics={})
    with large_blocks_mapped():
        found = _best(model, options, context)
    style = (context.arithmetic or SAFE).quantizers
    if not options.store_rest or not STYLES[style].stores_rest:
        return found
    return store_as_integers(found, Selection(exclude=frozenset(options.exclude), rest=True))


def _best(model: Model, options: Int8Options, context: Context) -> Model:
    """Return the form by the method that suits, with its biases corrected where that comes nearer to float."""
    if context.twin is not None and options.method == AUTO:
        return _imagined(model, options, context)
    method, found = _nearest(model, options, context)
    if not options.bias_correction or context.calibration is None:
        return found
    corrected = _quantized(model, replace(options, method=method), context, correcting=True)
    forms = {"as it is": found, "corrected": corrected}
    return forms[nearest(model, forms, context.calibration)]


def settled(model: Model, options: Int8Options, context: Context) -> Int8Options:
    """Return the options with the range method that "auto" chooses for this model and these options."""
    if options.method != AUTO:
        return options
    if context.twin is not None:
        return replace(options, method=AUTO_METHODS[0])
    return replace(options, method=_nearest(model, options, context)[0])


def _nearest(model: Model, options: Int8Options, context: Context) -> tuple[str, Model]:
    """Return the method whose outputs are nearest to the model's, and its form; calibration runs once for all."""
    methods = AUTO_METHODS if options.method == AUTO else (options.method,)
    forms = {method: _quantized(model, replace(options, method=method), context) for method in methods}
    first = methods[0]
    if context.calibration is None or all(f.proto == forms[first].proto for f in forms.values()):
        return first, forms[first]
    chosen = nearest(model, forms, context.calibration)
    return chosen, forms[chosen]


def _imagined(model: Model, options: Int8Options, context: Context) -> Model:
    """Quantize by the ranges of a twin, or by the model's own where made-up inputs show that the twin is no likeness.

    That is so in a network that was never trained: its batch norms say nothing about what flows through it.
    """
    options = replace(options, method=AUTO_METHODS[0])
    if ALONE in (context.statistics or {}):
        return _quantized(
            model, options, replace(context, twin=None, statistics=(context.statistics or {})[ALONE])
        )
    found = _quantized(model, options, context, correcting=options.bias_correction)
    if context.calibration is None:
        return found
    errors = distances(model, {"twin": found}, context.calibration, FEW)
    if errors.get("twin", 0.0) <= LIKENESS:
        return found
    alone = replace(context, twin=None, statistics={})
    own = _quantized(model, options, alone)
    if (
        distances(model, {"own": own}, context.calibration, FEW).get("own", np.inf)
        > errors["twin"] * LIKENESS
    ):
        return found
    if context.statistics is not None:
        context.statistics[ALONE] = alone.statistics
    return own


def _quantized(model: Model, options: Int8Options, context: Context, *, correcting: bool = False) -> Model:
    feeds = None if context.calibration is None else next(context.calibration(), None)
    try:
        model = raised(model, options, feeds)
    except CannotUpgradeError as error:
        return _left_in_float(model, rules.OPSET.format(version=opset(model.proto), why=error))
    arithmetic = options.arithmetic(context.arithmetic or SAFE)
    divided: Mapping[str, np.ndarray] = {}
    if options.even and arithmetic.per_channel and context.calibration is not None:
        model, divided = evening.even(model, _shares(model, context, context.calibration))
    graph = Graph(model)
    exclude, slower = frozenset(options.exclude), frozenset[str]()
    known = context.arithmetic is None or context.arithmetic.activations == "u8"
    if options.fit and known:
        graph, slower = fit(graph, exclude=exclude, stem=options.stem)
    stem = options.stem and (known or not options.fit)
    plan = place(graph, arithmetic.quantizers, exclude=exclude, stem=stem, slower=slower)
    widths = Widths(
        options.activation_bits,
        options.weight_method,
        frozenset(options.narrow),
        wide(graph, plan, ends=options.wide_edges),
        options.edge_bits(context.arithmetic or SAFE),
    )
    twin = None if context.twin is None else evening.follow(context.twin, divided)
    statistics = _statistics(context, EVEN) if divided else context.statistics
    observers = _observed(model, graph, plan, options, replace(context, twin=twin, statistics=statistics))
    ranges = {
        name: (arithmetic.symmetric_activations and centring.span(graph, name))
        or observer.range(
            options.methods.get(name, options.method),
            percentile=options.percentile,
            bits=widths.activation([name]),
            symmetric=arithmetic.symmetric_activations,
        )
        for name, observer in observers.items()
    }
    writer = QdqWriter(graph, plan, arithmetic, widths)
    if correcting and context.calibration is not None:
        writer.set_ranges(ranges)
        if twin is None:
            correct(writer, context.calibration)
        else:
            known_means = {} if statistics is None else statistics
            if MEANS not in known_means:
                known_means[MEANS] = input_means(model, twin, context.calibration)
            correct_by_means(writer, known_means[MEANS])
    elif arithmetic.symmetric_activations:
        writer.set_ranges(ranges)
        correct_by_means(writer, centring.zeros(graph))
    return writer.write(ranges)


def _shares(model: Model, context: Context, batches: Batches) -> Mapping[str, np.ndarray]:
    """Return the sizes of the channels in front of depthwise convolutions, found once for a graph and its data."""
    known = _statistics(context, SHARES)
    missing = [name for name in evening.uneven(model) if name not in known]
    twins = set() if context.twin is None else set(infer(context.twin.proto))
    for source, names in (
        (model, [name for name in missing if name not in twins]),
        (context.twin or model, [name for name in missing if name in twins]),
    ):
        if names:
            known.update(evening.sizes(source, names, batches))
    return known


def _statistics(context: Context, kind: str) -> dict[str, Any]:
    """Return what is remembered of one kind besides the statistics of the graph as it is."""
    return {} if context.statistics is None else context.statistics.setdefault(kind, {})


def _observed(
    model: Model, graph: Graph, plan: Placement, options: Int8Options, context: Context
) -> dict[str, Observer]:
    """Return the statistics of a plan's tensors.

    What the model has with nothing left out is observed first, and together: the engine fuses otherwise where fewer
    tensors are asked for, and a range is to be the same to the last bit in every form that a search tries. Where that
    finds values that are not finite, the plan may leave them out.
    """
    known = {} if context.statistics is None else context.statistics
    style = (context.arithmetic or SAFE).quantizers
    whole = Graph(model)
    first = dict(known)
    with suppress(InputError):
        _observe(whole, place(whole, style), options, context, first)
        known.update(first)
    return _observe(graph, plan, options, context, known)


def _observe(
    graph: Graph, plan: Placement, options: Int8Options, context: Context, known: dict[str, Observer]
) -> dict[str, Observer]:
    names = [name for name in plan.points if name not in plan.bounds]
    if all(name in known for name in names):
        return {name: known[name] for name in names}
    return observe(
        graph.build(),
        names,
        twin=context.twin,
        batches=context.calibration,
        progress=context.progress,
        settings=replace(options.calibration, folder=options.calibration.folder or context.work),
        known=known,
    )


def raised(model: Model, options: Int8Options, feeds: dict[str, np.ndarray] | None) -> Model:
    """Return the model in an operator set that can say what is meant: INT4 if possible where bits are few."""
    if options.narrow or (options.weight_bits or 8) <= NARROW_BITS:
        with suppress(CannotUpgradeError):
            return upgrade(model, fours.OPSET, feeds=feeds, newest=NEWEST)
    return upgrade(model, OPSET, feeds=feeds, newest=NEWEST)


def _left_in_float(model: Model, reason: str) -> Model:
    graph = Graph(model)
    for node in graph.nodes:
        set_reason(node, reason)
    return graph.build()


INT8 = Pass("int8", Int8Options, run)
