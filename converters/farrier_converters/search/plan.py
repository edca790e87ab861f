"""What is tried: each of a target's toolchains in each of its precisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farrier_contracts.targets import Target, Toolchain

# precision -> the passes that lead to it, in order, with their default options
PRECISIONS: dict[str, tuple[str, ...]] = {
    "fp32": ("clean", "fuse"),
    "fp16": ("clean", "fuse", "fp16"),
    "int8": ("clean", "fuse", "int8"),
}


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


def plan(target: Target) -> tuple[Candidate, ...]:
    """Return the candidates for a target, besides the original model."""
    several = len(target.toolchains) > 1
    return tuple(
        Candidate(
            name=f"{toolchain.compiler}-{precision}" if several else precision,
            precision=precision,
            toolchain=toolchain,
            steps=tuple(Step(name) for name in PRECISIONS[precision]),
        )
        for toolchain in target.toolchains
        for precision in toolchain.precisions
        if precision in PRECISIONS
    )
