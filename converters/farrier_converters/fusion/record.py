"""What a rule proposes, and what is written down about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from .site import Site


@dataclass(frozen=True)
class Rewrite:
    """Nodes to take out, and the nodes that make the same tensors in their place.

    Results of `old` that something outside reads are made by `new` under the same names, or are read under another
    name from then on: `aliases` maps such a result to the tensor that equals it.
    """

    old: tuple[onnx.NodeProto, ...]
    new: tuple[onnx.NodeProto, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One kind of rewrite, looked for at each node of the operators `ops` (none named: of any).

    An `exact` rule has to give the same bits, any other the same numbers to float32 rounding. `find` changes no node;
    it may add initializers, which nothing reads if the rewrite is not carried out.
    """

    name: str
    ops: tuple[str, ...]
    find: Callable[[Site, onnx.NodeProto], Rewrite | None]
    exact: bool = False


@dataclass(frozen=True)
class Proof:
    """Both forms ran on the same random inputs: their largest distance, absolute and relative to the largest result."""

    max_abs: float
    max_rel: float
    values: int  # that were compared


@dataclass(frozen=True)
class Gain:
    """What a rewrite saves in each run, free dimensions counted as 1.

    `operations` are multiply-adds of what multiplies by weights, and one per computed element of anything else;
    `bytes` are those of results that are no longer written.
    """

    nodes: int
    operations: int
    bytes: int


@dataclass(frozen=True)
class Application:
    """A rule that was carried out: on which nodes, on what proof, and for what gain."""

    rule: str
    nodes: tuple[str, ...]
    proof: Proof
    gain: Gain


@dataclass(frozen=True)
class Refusal:
    """A rule that fitted and was left out, because its proof failed or could not be made."""

    rule: str
    nodes: tuple[str, ...]
    reason: str


@dataclass
class Log:
    """What graph passes did, in order."""

    applications: list[Application] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
