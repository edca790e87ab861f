"""Gather what the rules of `causes` rest on, from a probed pair of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx

from ..graph.edit import Graph, standard
from ..quantize.rules import LINEAR
from .causes import ActivationFacts, BiasFacts, JoinFacts, Place, WeightFacts
from .originals import Originals, channel_axis
from .pairs import Pair, origins
from .probe import Probed
from .quantizers import LIMITS, ActivationQuantizer, ConstantQuantizer

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
BULK = 0.999  # the share of values that counts as the bulk


class Facts:
    """Everything known of a probed pair of models; `shares` are those of `share.shares`."""

    def __init__(self, probed: Probed, shares: Mapping[str, float]) -> None:
        self.probed = probed
        self.shares = shares
        self.graph = Graph(probed.b)
        self.by_name = {p.name: p for p in probed.pairs}
        self.layers = _layers(self.graph, probed.pairs)
        self.activations = {p.name: f for p in probed.pairs if (f := self._activation(p)) is not None}
        self.originals = Originals(probed.a, self.graph)

    def place(self, p: Pair) -> Place:
        """Return where a pair is."""
        return Place(p.name, p.node, p.op, self.shares.get(p.name, 0.0))

    def weights(self) -> Iterator[WeightFacts]:
        """Yield the facts of each layer whose stored weights have a float original."""
        for node, p in self._linear():
            stored = self.probed.quantizers.constants.get(node.input[1])
            wanted = None if stored is None else self.originals.weight(node, stored)
            if stored is not None and wanted is not None:
                axis = channel_axis(node) % stored.integers.ndim
                facts = weight_facts(stored, wanted, axis, place=self.place(p), name=_plain(stored.name))
                yield replace(facts, part=self._part(p))

    def biases(self) -> Iterator[BiasFacts]:
        """Yield the facts of each quantized bias."""
        for node, p in self._linear():
            stored = self.probed.quantizers.constants.get(node.input[2]) if len(node.input) > 2 else None
            if stored is None:
                continue
            sums = self.probed.sums[p.name]
            yield BiasFacts(
                place=self.place(p),
                name=_plain(stored.name),
                stored=stored.values.reshape(-1),
                wanted=self.originals.bias(node, stored),
                scale=stored.scale.astype(np.float64),
                expected_scale=self._accumulator_scale(node),
                at_limit=_at_limit(stored),
                spread=float(np.sqrt(sums.signal / max(sums.count, 1))),
                part=self._part(p),
                drift=sums.mean_drift(),
            )

    def joins(self) -> Iterator[JoinFacts]:
        """Yield the facts of each Add and Concat of at least two activations."""
        sources = origins(self.graph, self.probed.pairs)
        owner = {name: p.name for p in self.probed.pairs for name in (p.made, *p.read)}
        for node in self.graph.nodes:
            p = self.layers.get(node.output[0]) if standard(node, "Add", "Concat") else None
            names = [owner[n] if n in owner else next(iter(sources.get(n, ())), "") for n in node.input]
            names = [n for n in dict.fromkeys(names) if n in self.by_name]
            if p is None or len(names) < 2:
                continue
            branches = [self.activations[n] for n in names if n in self.activations]
            found = [self.probed.quantizer(self.by_name[n]) for n in names]
            quantizers = [q for q in found if q is not None]
            shared = len(quantizers) == len(names) and all(q.same_scale(quantizers[0]) for q in quantizers)
            own = self.probed.quantizer(p)
            where = Place(p.name, self._called(node), node.op_type, self.shares.get(p.name, 0.0))
            powers = [self._power(n) for n in names]
            step = float(own.scale[0]) if own is not None and own.scale.size == 1 else None
            shared = shared and len(branches) > 1
            yield JoinFacts(where, tuple(branches), shared, tuple(powers), step, self.readers(p))

    def readers(self, p: Pair) -> tuple[str, ...]:
        """Return the nodes of B that compute from a pair's tensor."""
        names = (p.made, *p.read)
        nodes = (
            n for name in names for n in self.graph.readers.get(name, []) if not standard(n, *CONVERSIONS)
        )
        return tuple(dict.fromkeys(self._called(n) for n in nodes))

    def _called(self, node: onnx.NodeProto) -> str:
        """Return a node's name, or that of the tensor that it makes for A."""
        p = self.layers.get(node.output[0])
        return node.name or (p.name if p is not None else node.output[0])

    def _power(self, name: str) -> float:
        sums = self.probed.sums[name]
        return sums.signal / max(sums.count, 1)

    def _linear(self) -> Iterator[tuple[onnx.NodeProto, Pair]]:
        for node in self.graph.nodes:
            p = self.layers.get(node.output[0]) if standard(node, *LINEAR) else None
            if p is not None:
                yield node, p

    def _behind(self, p: Pair) -> float:
        """Return the share of the loss that the weights behind a tensor make."""
        names = {
            out for name in (p.made, *p.read) for n in self.graph.readers.get(name, []) for out in n.output
        }
        layers = {self.layers[n].name for n in names if n in self.layers and n not in (p.made, *p.read)}
        return sum(self.shares.get(n, 0.0) for n in sorted(layers - {p.name}))

    def _part(self, p: Pair) -> float:
        """Return the part of a layer's own error that its result's quantizer does not make."""
        own, activation = self.probed.sums[p.name].own, self.activations.get(p.name)
        if activation is None or own <= 0:
            return 1.0
        return float(np.clip((own - activation.cost.total) / own, 0, 1))

    def _accumulator_scale(self, node: onnx.NodeProto) -> np.ndarray | None:
        weight = self.probed.quantizers.constants.get(node.input[1])
        source = self.probed.quantizers.of_result(node.input[0])
        if weight is None or source is None or source.scale.size != 1:
            return None
        return source.back_scale.astype(np.float64) * weight.scale

    def _activation(self, p: Pair) -> ActivationFacts | None:
        quantizer, sums = self.probed.quantizer(p), self.probed.sums[p.name]
        if quantizer is None or quantizer.scale.size != 1 or sums.sketch is None or not sums.sketch.seen:
            return None
        levels = quantizer.limits[1] - quantizer.limits[0]
        best = sums.sketch.best(levels, symmetric=_symmetric(quantizer))
        return ActivationFacts(
            place=self.place(p),
            extent=quantizer.extent,
            levels=levels,
            cost=sums.sketch.cost(*quantizer.extent, levels),
            best=best,
            best_cost=sums.sketch.cost(*best, levels),
            data=(sums.sketch.low, sums.sketch.high),
            bulk=sums.sketch.percentile(BULK),
            own=sums.own,
            back_ratio=float(quantizer.back_scale[0] / quantizer.scale[0]),
            back_shift=float(quantizer.back_zero_point[0]) - float(quantizer.zero_point[0]),
            is_input=p.op == "input",
            channel_bounds=sums.channel_bound,
            clips=p.dropped,
            readers=self.readers(p),
            behind=self._behind(p),
        )


def weight_facts(
    stored: ConstantQuantizer, wanted: np.ndarray, axis: int, *, place: Place, name: str
) -> WeightFacts:
    """Compare stored weights with float ones of the same shape, along an axis."""
    integers = np.moveaxis(stored.integers.astype(np.int64), axis, 0).reshape(wanted.shape[axis], -1)
    values, floats = (
        np.moveaxis(v.astype(np.float64), axis, 0).reshape(wanted.shape[axis], -1)
        for v in (stored.values, wanted)
    )
    zero = stored.zero_point.astype(np.int64).reshape(-1)
    centred = integers - (zero[:, None] if stored.axis == axis and zero.size > 1 else zero[0])
    limit = int(np.abs(centred).max(initial=1)) or 1
    bound = np.abs(floats).max(axis=1, initial=0.0)
    ideal_step = np.maximum(bound / limit, 1e-300)[:, None]
    slope, offset, signal = _line(floats, values)
    step = stored.scale.astype(np.float64)
    low, high = LIMITS[stored.integers.dtype]
    return WeightFacts(
        place=place,
        name=name,
        per_channel=stored.axis == axis and bool(np.ptp(stored.scale)),
        error=np.square(values - floats).sum(axis=1),
        ideal=np.square(np.rint(floats / ideal_step) * ideal_step - floats).sum(axis=1),
        signal=signal,
        slope=slope,
        offset=offset,
        bound=bound,
        steps=np.abs(centred).max(axis=1, initial=0).astype(np.float64),
        clipped=((integers >= high) | (integers <= low + 1)).mean(axis=1),
        size=floats.shape[1],
        step=step if step.size == len(bound) else np.full(len(bound), step.flat[0]),
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return slope and offset of y over x by least squares, row by row, and the squared sum of x around its mean."""
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    centred = x - mean_x[:, None]
    power = np.square(centred).sum(axis=1)
    flat = power <= 1e-12 * np.maximum(np.square(x).sum(axis=1), 1e-300)
    slope = np.where(flat, 1.0, (centred * (y - mean_y[:, None])).sum(axis=1) / np.where(flat, 1.0, power))
    return slope, mean_y - slope * mean_x, power


def _layers(b: Graph, pairs: tuple[Pair, ...]) -> dict[str, Pair]:
    """Map each tensor of B to the pair that its node belongs to: its own, or the next behind it."""
    found = {p.made: p for p in pairs}
    for node in reversed(b.ordered()):
        for name in node.output:
            if name in found:
                continue
            readers = b.readers.get(name, [])
            behind = next((found[r] for n in readers for r in n.output if r in found), None)
            if behind is not None:
                found[name] = behind
    return found


def _symmetric(quantizer: ActivationQuantizer) -> bool:
    low, high = quantizer.limits
    return abs(2 * int(quantizer.zero_point[0]) - (low + high)) <= 1


def _at_limit(stored: ConstantQuantizer) -> int:
    low, high = LIMITS[stored.integers.dtype]
    return int(((stored.integers >= high) | (stored.integers <= low)).sum())


def _plain(name: str) -> str:
    return name.removesuffix("_quantized")
