"""Quantize the float model again: as the quantized one was, but for what a cure changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.compare import Cure
from farrier_converters.compare.quantizers import Quantizers, find
from farrier_converters.data import Dataset
from farrier_converters.graph.edit import Graph, standard
from farrier_converters.model import Model
from farrier_converters.quantize.rules import LINEAR

CALIBRATION_BATCH = 8  # rows a run, where the model leaves that free
SEVEN_BITS = 64  # weights of 8 bits reach further


@dataclass(frozen=True)
class Plan:
    """How to quantize: the arithmetic, what stays in float, and ranges of single tensors."""

    arithmetic: Arithmetic
    exclude: tuple[str, ...] = ()
    methods: Mapping[str, str] = field(default_factory=dict)
    equalize: bool = False

    def with_cures(self, cures: Iterable[Cure], *, exclude: bool) -> Plan:
        """Return the plan with these cures; layers are left in float where `exclude` says so."""
        plan = self
        for cure in cures:
            bits = min(plan.arithmetic.weight_bits, cure.weight_bits or 8)
            per_channel = plan.arithmetic.per_channel or cure.per_channel
            plan = replace(
                plan,
                arithmetic=replace(plan.arithmetic, weight_bits=bits, per_channel=per_channel),
                methods={**plan.methods, **cure.methods},
                equalize=plan.equalize or cure.equalize,
                exclude=tuple(dict.fromkeys([*plan.exclude, *(cure.exclude if exclude else ())])),
            )
        return plan

    def to_document(self) -> dict[str, Any]:
        """Return the plan as options a person can read."""
        return {
            "activations": self.arithmetic.activations,
            "weight_bits": self.arithmetic.weight_bits,
            "per_channel": self.arithmetic.per_channel,
            "symmetric_activations": self.arithmetic.symmetric_activations,
            "exclude": list(self.exclude),
            "methods": dict(self.methods),
            "equalize": self.equalize,
        }


def plan_of(b: Model) -> Plan | None:
    """Return how a quantized model was quantized, as far as it shows; None for one without quantizers."""
    graph = Graph(b)
    found = find(graph)
    if not found.activations:
        return None
    return Plan(_arithmetic(found), exclude=_left_in_float(graph, found))


def quantize(a: Model, plan: Plan, calibration: Dataset, progress: Callable[[str, float], None]) -> Model:
    """Return the float model, cleaned, fused and quantized by the plan; raises what the passes raise."""
    size = calibration.fixed_batch or CALIBRATION_BATCH

    def batches() -> Iterator[dict[str, np.ndarray]]:
        return (feeds for feeds, _ in calibration.batches(size))

    context = passes.Context(plan.arithmetic, batches, progress)
    model = a
    for name in steps(plan):
        step = passes.get(name)
        if name == "int8":
            plan = replace(plan, exclude=_with_activations(model, plan.exclude))
        model = step.run(model, _options(step, plan), context)
    return model


def _with_activations(fused: Model, names: tuple[str, ...]) -> tuple[str, ...]:
    """Add, for a name that is a Relu's or Clip's result, the operator that this belongs to."""
    graph = Graph(fused)
    found = list(names)
    for name in names:
        node = graph.producer.get(name)
        before = (
            graph.producer.get(node.input[0]) if node is not None and standard(node, "Relu", "Clip") else None
        )
        if before is not None:
            found.append(before.name or before.output[0])
    return tuple(dict.fromkeys(found))


def steps(plan: Plan) -> tuple[str, ...]:
    """Return the names of the passes."""
    equalize = ("equalize",) if plan.equalize and "equalize" in passes.PASSES else ()
    return ("clean", "fuse", *equalize, "int8")


def _options(step: passes.Pass, plan: Plan) -> Any:
    if step.name != "int8":
        return step.options()
    wanted = {"exclude": plan.exclude, "methods": plan.methods}
    known = {option.name for option in dataclasses.fields(step.options)}
    return step.options(**{name: value for name, value in wanted.items() if name in known})


def _arithmetic(found: Quantizers) -> Arithmetic:
    weights = [c for c in found.constants.values() if c.integers.ndim > 1]
    reach = max((int(np.abs(c.integers.astype(np.int64)).max(initial=0)) for c in weights), default=127)
    middles = [abs(2 * int(q.zero_point[0]) - sum(q.limits)) <= 1 for q in found.activations.values()]
    return Arithmetic(
        "s8" if found.signed else "u8",
        weight_bits=7 if reach < SEVEN_BITS else 8,
        per_channel=any(c.scale.size > 1 for c in weights) or not weights,
        symmetric_activations=all(middles),
    )


def _left_in_float(graph: Graph, found: Quantizers) -> tuple[str, ...]:
    """Return the layers with weights that the quantized model computes in float."""
    linear = [n for n in graph.nodes if standard(n, *LINEAR)]
    left = [n for n in linear if len(n.input) > 1 and graph.constant(n.input[1]) is not None]
    return tuple(n.name or n.output[0] for n in left if n.input[1] not in found.constants)
