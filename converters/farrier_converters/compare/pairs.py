"""Pair the tensors of two models by what they mean: names first, then the quantizers and activations around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..graph.compact.names import BEFORE
from ..graph.edit import Graph, reads, standard
from ..model import subgraphs
from ..quantize.repair import evening
from ..quantize.rules import CARRIERS
from .quantizers import Quantizers

SUFFIXES = ("_DequantizeLinear_Output", "_dequantized", "_dq", "/DequantizeLinear_output_0")
ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True)
class Pair:
    """One tensor of both models. `made` is what B's node writes, `read` what B's readers read instead of it."""

    name: str  # in A
    made: str  # in B, before its quantizer
    read: tuple[str, ...]  # in B: behind its quantizer, and itself
    node: str  # of B, where the tensor is computed: its name, or else the tensor; "" for an input
    op: str  # of that node; "input" for an input
    sources: tuple[str, ...] = ()  # the pairs (by name) that feed it in B
    dropped: bool = False  # the Relu or Clip that makes it in A is gone in B: the quantizer clips instead
    extra: int = 0  # channels of zeros that B has behind A's, along axis 1
    # what B's channels (axis 1) are divided by, undone behind; [C]
    divisor: np.ndarray | None = field(default=None, compare=False)

    def divided(self, value: np.ndarray) -> np.ndarray:
        """Return A's tensor in the sizes of B's channels."""
        return value if self.divisor is None else (value / self._along(value.ndim)).astype(value.dtype)

    def widened(self, value: np.ndarray) -> np.ndarray:
        """Return A's tensor as B has it: in the sizes of its channels, with its extra channels of zeros."""
        ends = [(0, self.extra if axis == 1 else 0) for axis in range(value.ndim)]
        value = self.divided(value)
        return np.pad(value, ends) if self.extra else value

    def cropped(self, value: np.ndarray) -> np.ndarray:
        """Return B's tensor without its extra channels."""
        return value[:, : value.shape[1] - self.extra] if self.extra else value

    def narrowed(self, value: np.ndarray) -> np.ndarray:
        """Return B's tensor as A has it."""
        value = self.cropped(value)
        return value if self.divisor is None else (value * self._along(value.ndim)).astype(value.dtype)

    def _along(self, rank: int) -> np.ndarray:
        assert self.divisor is not None
        return self.divisor.reshape([1, -1] + [1] * (rank - 2))

    @property
    def result(self) -> str:
        """The tensor of B to look at: behind the quantizer where there is one."""
        return self.read[0]


def pair(a: Graph, b: Graph, quantizers: Quantizers) -> list[Pair]:
    """Return the pairs in B's order: inputs first; tensors that only one model has are left out."""
    made_in_b = {value.name for value in b.inputs} | set(b.producer)
    found: list[Pair] = []
    for name in _tensors(a):
        made = _made(a, b, name, made_in_b, quantizers)
        if made is None:
            continue
        quantizer = quantizers.activations.get(made)
        maker = b.producer.get(made)
        node, op = ("", "input") if maker is None else (maker.name or name, maker.op_type)
        read = ((*quantizer.results, quantizer.source) if quantizer else (made,)) or (made,)
        divisor = evening.divisor(b, made)
        found.append(Pair(name, made, tuple(read), node, op, dropped=_dropped(a, name, op), divisor=divisor))
    pairs = _with_sources(b, _unique(found))
    return _with_sources(b, [p for p in pairs if not _passes_through(p, pairs, quantizers)])


def _dropped(a: Graph, name: str, op: str) -> bool:
    maker = a.producer.get(name)
    return maker is not None and standard(maker, *ACTIVATIONS) and op not in ACTIVATIONS


def left_out(graph: Graph) -> list[str]:
    """Return the nodes that hold subgraphs, whose insides are not compared: by name, or first output."""
    return [node.name or node.output[0] for node in graph.nodes if any(True for _ in subgraphs(node))]


def _tensors(a: Graph) -> list[str]:
    return [value.name for value in a.inputs] + [n for node in a.nodes for n in node.output if n]


def _made(a: Graph, b: Graph, name: str, made_in_b: set[str], quantizers: Quantizers) -> str | None:
    """Return the tensor of B, before its quantizer, that is A's tensor `name`; None where there is none."""
    candidates = (name, *(name + suffix for suffix in SUFFIXES))
    present = next((n for n in candidates if n in made_in_b), None)
    if present is None and name + BEFORE in quantizers.activations:
        return name + BEFORE
    if present is None:
        return _before_dropped_activation(a, b, name, made_in_b)
    if _takes_activation(a, name, made_in_b):
        return None  # here B's tensor is already that of the activation behind it
    quantizer = quantizers.of_result(present)
    return quantizer.source if quantizer else present


def _takes_activation(a: Graph, name: str, made_in_b: set[str]) -> bool:
    """Whether B has dropped the activation that alone reads this tensor, its quantizer clipping instead."""
    reader = a.only_reader(name)
    if reader is None or not standard(reader, *ACTIVATIONS) or reader.input[0] != name:
        return False
    gone = reader.output[0]
    return not any(n in made_in_b for n in (gone, gone + BEFORE, *(gone + suffix for suffix in SUFFIXES)))


def _before_dropped_activation(a: Graph, b: Graph, name: str, made_in_b: set[str]) -> str | None:
    maker = a.producer.get(name)
    if maker is None or not standard(maker, *ACTIVATIONS):
        return None
    before = maker.input[0]
    inside_b = before in made_in_b and a.only_reader(before) is maker
    quantized = any(standard(n, "QuantizeLinear") for n in b.readers.get(before, []))
    return before if inside_b and quantized else None


def _unique(found: list[Pair]) -> list[Pair]:
    """Keep the last pair of each tensor of B: what a fused node computes is the result of its whole chain."""
    last = {p.made: p for p in found}
    return [p for p in found if last[p.made] is p]


def _passes_through(p: Pair, pairs: list[Pair], quantizers: Quantizers) -> bool:
    """Whether B only moves integers here: the same scale before and behind, so that nothing is rounded."""
    own = quantizers.activations.get(p.made)
    if own is None or p.op not in CARRIERS or not p.sources:
        return False
    before = [quantizers.activations.get(q.made) for q in pairs if q.name in p.sources]
    return all(q is not None and q.same_scale(own) for q in before)


def origins(b: Graph, pairs: Sequence[Pair]) -> dict[str, tuple[str, ...]]:
    """Return, for every tensor of B, the pairs (by name) that it is computed from without another in between."""
    owner = {name: p.name for p in pairs for name in (p.made, *p.read)}
    found: dict[str, tuple[str, ...]] = {}
    for node in b.ordered():
        sources = dict.fromkeys(
            s for n in sorted(reads(node)) for s in ((owner[n],) if n in owner else found.get(n, ()))
        )
        for name in node.output:
            found[name] = tuple(sources)
    return found


def _with_sources(b: Graph, pairs: list[Pair]) -> list[Pair]:
    """Find, for each pair, the pairs that B computes it from; in B's topological order."""
    sources = origins(b, pairs)
    order = {name: position for position, name in enumerate(sources)}
    ordered = sorted(pairs, key=lambda p: order.get(p.made, -1))
    return [replace(p, sources=sources.get(p.made, ())) for p in ordered]
