"""What is tried: each of a target's toolchains in each of its precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Arithmetic, Target, Toolchain

from ..model import Model


@dataclass(frozen=True)
class Step:
    """One pass with the options that differ from its defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One way to build the model for a target; without steps it is the model as it came."""

    name: str
    precision: str
    toolchain: Toolchain
    steps: tuple[Step, ...] = ()


_CLEAN = (Step("clean"), Step("fuse"))
# precision -> (what a candidate's name gets after it, the passes that lead to it)
WAYS: dict[str, tuple[tuple[str, tuple[Step, ...]], ...]] = {
    "fp32": (("", _CLEAN),),
    "fp16": (("", (*_CLEAN, Step("fp16"))),),
    "int8": (
        ("", (*_CLEAN, Step("int8"))),
        ("-fitted", (*_CLEAN, Step("int8", {"fit": True}))),
    ),
    "int8-smooth": (("", (*_CLEAN, Step("smooth"), Step("int8"))),),
    "int8-dynamic": (("", (*_CLEAN, Step("int8-dynamic"))),),
    "int8-weights": (("", (*_CLEAN, Step("int8-weights"))),),
    "int4": (("", (*_CLEAN, Step("int4"))),),
    "nf4": (("", (*_CLEAN, Step("nf4"))),),
    "bf16": (("", (*_CLEAN, Step("bf16"))),),
    "fp8": (("", (*_CLEAN, Step("fp8"))),),
}
_W4, _W4A4 = {"weight_bits": 4}, {"weight_bits": 4, "activation_bits": 4}
_EDGES = {"wide_edges": True}  # the first and the last layer keep 8 bits: they are the most sensitive ones
# In these, activations are integers too. What learns cleans and fuses by itself, and keeps batch norms until the end.
WAYS |= {
    "w4a8": (("", (*_CLEAN, Step("int8", _W4 | _EDGES))),),
    "w4a8-adaround": (("", (Step("adaround", {"int8": _W4 | _EDGES}),)),),
    "qat": (("", (Step("qat"),)),),
    "w4a8-qat": (("", (Step("qat", {"int8": _W4 | _EDGES}),)),),
    "w4a4-qat": (("", (Step("qat", {"int8": _W4A4 | _EDGES}),)),),
}
COSTED = ("onnxruntime",)  # engines with a table of what integers make slower (see `quantize.speed`)
TRAINED = ("qat",)  # tried besides where there are rows to train on
DENSE = ("MatMul", "Gemm", "LSTM", "GRU", "Gather")  # operators whose weights these two serve well


def plan(
    target: Target, precisions: Sequence[str] | None = None, *, suggested: bool = False
) -> tuple[Candidate, ...]:
    """Return the candidates for a target, besides the original model; those of its first toolchain have plain names.

    `precisions` takes the place of what each of the target's toolchains is tried in, as far as the toolchain takes
    them. Raises UsageError for an unknown one, and where no toolchain takes any; not so for what was only suggested.
    """
    for precision in precisions or ():
        if precision not in WAYS:
            raise UsageError(f"unknown precision {precision!r}; choose among: {', '.join(WAYS)}")
    found = tuple(
        Candidate(
            name=f"{precision}{suffix}" if index == 0 else f"{toolchain.engine}-{precision}{suffix}",
            precision=precision,
            toolchain=toolchain,
            steps=suit(_readable(steps, toolchain), toolchain.arithmetic),
        )
        for index, toolchain in enumerate(target.toolchains)
        for precision in dict.fromkeys(toolchain.precisions if precisions is None else precisions)
        if precision in toolchain.precisions + toolchain.extra
        for suffix, steps in WAYS.get(precision, ())
        if toolchain.engine in COSTED or not any(step.options.get("fit") for step in steps)
    )
    if precisions and not found and not suggested:
        takes = dict.fromkeys(p for t in target.toolchains for p in t.precisions + t.extra)
        raise UsageError(f"{target.name} takes none of {', '.join(precisions)}; it takes: {', '.join(takes)}")
    return found


def _readable(steps: tuple[Step, ...], toolchain: Toolchain) -> tuple[Step, ...]:
    """Return the passes such that fusing makes no operator that is too new for the toolchain's importer."""
    if not toolchain.newest_operators:
        return steps
    options = {"newest": toolchain.newest_operators}
    return tuple(Step("fuse", options) if step.name == "fuse" else step for step in steps)


def suit(steps: tuple[Step, ...], arithmetic: Arithmetic | None) -> tuple[Step, ...]:
    """Return the passes as an arithmetic needs them.

    With one scale for all channels of a weight tensor, the channels are given like ranges before they are rounded; and
    where that one is symmetric for activations too, they are centred around zero.
    """
    if arithmetic is None or arithmetic.per_channel:
        return steps
    before = (Step("equalize"), Step("centre")) if arithmetic.symmetric_activations else (Step("equalize"),)
    return tuple(part for step in steps for part in ((*before, step) if step.name == "int8" else (step,)))


def suited(model: Model) -> tuple[str, ...]:
    """Return the precisions worth a try besides a target's own, where dense layers dominate.

    What a language model or a recurrent network computes with hangs on its input, so that one range for all inputs
    fits badly: rounding at run time fits each, and convolutions are slower so. A few channels of a transformer reach
    much farther than the others, so that one range for all channels fits badly: smoothing evens them out.
    """
    tensors = {tensor.name: tensor.ByteSize() for tensor in model.proto.graph.initializer}
    dense = sum(
        tensors.pop(name, 0)
        for node in model.proto.graph.node
        if node.op_type in DENSE
        for name in node.input
    )
    return ("int8-dynamic", "int8-smooth") if dense > sum(tensors.values()) else ()
