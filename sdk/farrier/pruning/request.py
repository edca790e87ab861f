"""What is asked for, read and checked: goals as people write them, the target, its engine and precision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from farrier_contracts import targets
from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Target, Toolchain
from farrier_converters.measure import engines
from farrier_converters.pruning.options import PruneOptions
from farrier_converters.pruning.staircase import store
from farrier_converters.search.budget import parse_latency

from ..staircases import MEASURED_AFAR

PRECISIONS = ("fp32", "int8")
GOALS = ("ratio", "speedup", "latency", "max_latency", "parameters")
ANSWER = "onnxruntime"  # the engine that is taken first, where a target has it: it runs the file as it is


def share(value: float | str | None, *, what: str) -> float | None:
    """Read "50%", "0.5" or 0.5; raises UsageError."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", str(value).strip())
    found = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= found <= 1:
        raise UsageError(f"{what} is a share like 50% or 0.5, not {str(value)!r}")
    return found


def factor(value: float | str | None) -> float | None:
    """Read "2x", "2" or 2; raises UsageError."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*x?", str(value).strip().lower())
    if match is None or float(match[1]) < 1:
        raise UsageError(f"speedup is how many times fewer multiply-adds, like 2x, not {str(value)!r}")
    return float(match[1])


@dataclass(frozen=True)
class Goals:
    """What is to be reached. `max_latency_ms` is on the engine of this machine, by measurement."""

    ratio: float | None = None
    speedup: float | None = None
    latency: float | None = None
    parameters: float | None = None
    max_latency_ms: float | None = None

    @staticmethod
    def read(given: Mapping[str, Any]) -> Goals:
        """Read goals as people write them; raises UsageError for none, several, or one that cannot be read."""
        there = [name for name in GOALS if given.get(name) is not None]
        if len(there) > 1:
            raise UsageError(f"pruning has one goal; {' and '.join(_option(n) for n in there)} are given")
        limit = given.get("max_latency")
        return Goals(
            share(given.get("ratio"), what=_option("ratio")),
            factor(given.get("speedup")),
            share(given.get("latency"), what=_option("latency")),
            share(given.get("parameters"), what=_option("parameters")),
            None if limit is None else parse_latency(str(limit)),
        )

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return any(value is not None for value in vars(self).values())

    @property
    def timed(self) -> bool:
        """Whether it is about time."""
        return self.latency is not None or self.max_latency_ms is not None

    def options(self, options: PruneOptions) -> PruneOptions:
        """Return options with this goal; one of milliseconds has to be made a share first."""
        found = {name: getattr(self, name) for name in ("ratio", "speedup", "latency", "parameters")}
        return replace(options, **found)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Place:
    """Where the model will run: `here` says that this machine can time it."""

    target: Target
    toolchain: Toolchain
    precision: str
    here: bool
    notes: tuple[str, ...] = field(default=())


def place(target: str, engine: str | None, precision: str) -> Place:
    """Return the toolchain that is pruned for; raises UsageError for what the target does not have."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")
    board = targets.get(target)
    toolchain = _toolchain(board, engine, precision)
    missing = engines.missing(toolchain.engine)
    same = board.arch in ("any", targets.host().arch)
    if missing is None and same:
        return Place(board, toolchain, precision, here=True)
    if store.known_for(board.name, toolchain.engine, precision) is not None:
        return Place(board, toolchain, precision, here=False)
    why = missing or f"this machine is no {board.arch}"
    note = (
        f"steps of {board.name} are not measured ({why}): widths end where its engine's blocks are known to"
    )
    if toolchain.engine in MEASURED_AFAR:
        note += f"; to measure: farrier bench --staircase --on USER@HOST -t {board.name}"
    return Place(board, toolchain, precision, here=False, notes=(note,))


def _toolchain(board: Target, engine: str | None, precision: str) -> Toolchain:
    known: Sequence[Toolchain] = board.toolchains
    if engine is not None:
        known = [t for t in known if engine in (t.engine, t.compiler)]
        if not known:
            names = ", ".join(dict.fromkeys(t.engine for t in board.toolchains))
            raise UsageError(f"{board.name} has no engine {engine!r}; it has: {names}")
    fitting = [t for t in known if precision in t.precisions]
    if not fitting:
        raise UsageError(f"no engine of {board.name} computes in {precision}; choose another precision")
    there = [t for t in fitting if engines.missing(t.engine) is None] or fitting
    return next((t for t in there if t.engine == ANSWER), there[0])
