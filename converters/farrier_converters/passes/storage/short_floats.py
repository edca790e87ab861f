"""bfloat16 and FP8: weights in 16 or 8 bits; FP8 also for the activations of linear layers and convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from farrier_contracts.errors import UsageError

from ...graph.edit import Graph
from ...graph.upgrade import CannotUpgradeError, upgrade
from ...model import Model, opset
from ...quantize.calibrate import observe
from ...quantize.reasons import set_reason
from ...weights import sites
from ...weights.floats import E4M3, E5M2
from ...weights.marks import mark
from ...weights.short import BF16_OPSET, FP8_OPSET, fp8_inputs, fp8_weights, mark_readers, to_bfloat16
from ...weights.sites import CONV, LINEAR, Site
from .. import Context, Pass

KINDS = {kind.name: kind for kind in (E4M3, E5M2)}
WIDENED = (
    "weights in {precision}, arithmetic in float32: ONNX Runtime widens them at load, for it computes "
    "{precision} on no CPU; {targets}"
)
BF16_TARGETS = "processors with bfloat16 units need an engine of their own"
FP8_TARGETS = "TensorRT on Ada, Hopper and newer does"
SIMULATED = (
    "FP8 weights and activations, rounded between float32 operators on a CPU; "
    "TensorRT on Ada and newer computes in FP8"
)
OLD = "the graph's operator set {version} knows no {precision}, and raising it failed: {why}"


@dataclass(frozen=True)
class Bf16Options:
    """Nodes (by name) whose constants stay in float32, as do constants of fewer than `min_elements`."""

    exclude: tuple[str, ...] = ()
    min_elements: int = 8


@dataclass(frozen=True)
class Fp8Options:
    """`kind`: "e4m3" (more digits) or "e5m2" (more range). `activations`: the inputs of linear layers and convolutions
    as well, with scales from calibration data; made for engines with FP8 units, slow on a CPU. `exclude`: nodes, by
    name, that stay in float32, as do weights of fewer than `min_elements`."""

    kind: str = "e4m3"
    activations: bool = False
    exclude: tuple[str, ...] = ()
    min_elements: int = 1024


def run_bf16(model: Model, options: Bf16Options, context: Context) -> Model:
    """Return the model with its float constants in bfloat16: half the size, arithmetic and speed those of float32."""
    raised, why = _raised(model, BF16_OPSET, "bfloat16", context)
    graph = Graph(raised)
    if why:
        return _left(graph, why)
    before = set(graph.initializers)
    reasons = to_bfloat16(graph, exclude=frozenset(options.exclude), min_elements=options.min_elements)
    stored = before - set(graph.initializers)
    for node in mark_readers(graph, stored, "bf16"):
        set_reason(node, WIDENED.format(precision="bfloat16", targets=BF16_TARGETS))
    for node in graph.nodes:
        if set(options.exclude).intersection((node.name, node.output[0])):
            set_reason(node, sites.EXCLUDED)
        for name in node.input:
            if name in reasons:
                set_reason(node, reasons[name])
    return graph.build()


def run_fp8(model: Model, options: Fp8Options, context: Context) -> Model:
    """Return the model with FP8 weights, a scale per row; raises UsageError for data that is needed and missing."""
    if options.kind not in KINDS:
        raise UsageError(f"unknown kind of FP8 {options.kind!r}; choose one of: {', '.join(KINDS)}")
    if options.activations and context.calibration is None:
        raise UsageError("FP8 activations need calibration data; give some with --data or --calib")
    kind = KINDS[options.kind]
    raised, why = _raised(model, FP8_OPSET, "FP8", context)
    graph = Graph(raised)
    if why:
        return _left(graph, why)
    exclude = frozenset(options.exclude)
    banks = sites.find(graph, exclude=exclude, min_elements=options.min_elements)
    found = [site for bank in banks for site in bank.sites if site.weight not in graph.outputs]
    if options.activations:
        fp8_inputs(graph, found, _peaks(graph, found, context), kind)
    fp8_weights(graph, found, kind, dequantize=options.activations)
    for site in found:
        mark(site.node, "fp8")
        whole = options.activations and site.kind in (LINEAR, CONV)
        set_reason(site.node, SIMULATED if whole else WIDENED.format(precision="FP8", targets=FP8_TARGETS))
    return graph.build()


def _peaks(graph: Graph, found: list[Site], context: Context) -> dict[str, float]:
    names = list(dict.fromkeys(site.source for site in found if site.kind in (LINEAR, CONV)))
    seen = observe(graph.build(), names, batches=context.calibration, progress=context.progress)
    return {name: max(-observer.low, observer.high) for name, observer in seen.items()}


def _raised(model: Model, version: int, precision: str, context: Context) -> tuple[Model, str]:
    feeds = None if context.calibration is None else next(context.calibration(), None)
    try:
        return upgrade(model, version, feeds=feeds), ""
    except CannotUpgradeError as error:
        return model, OLD.format(version=opset(model.proto), precision=precision, why=error)


def _left(graph: Graph, reason: str) -> Model:
    for node in graph.nodes:
        set_reason(node, reason)
    return graph.build()


BF16 = Pass("bf16", Bf16Options, run_bf16)
FP8 = Pass("fp8", Fp8Options, run_fp8)
