"""What is tried: each of a target's toolchains in each of its precisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farrier_contracts.targets import Target, Toolchain


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
}


def plan(target: Target) -> tuple[Candidate, ...]:
    """Return the candidates for a target, besides the original model."""
    several = len(target.toolchains) > 1
    return tuple(
        Candidate(
            name=f"{toolchain.compiler}-{precision}{suffix}" if several else f"{precision}{suffix}",
            precision=precision,
            toolchain=toolchain,
            steps=steps,
        )
        for toolchain in target.toolchains
        for precision in toolchain.precisions
        for suffix, steps in WAYS.get(precision, ())
    )
