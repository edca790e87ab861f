"""Which small networks tell what kinds of layers cost, and how their times become curves. No I/O.

A network's time is that of its layers and of what the engine spends around them; only differences are used. Of a pair
of layers, to `w` channels and back, the time of both together is known exactly; where two layers read the channels, the
time grows by what reading them takes, and the rest is making them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...model import Model
from . import networks
from .layers import CONV, DENSE, DEPTHWISE, POINTWISE, PRODUCT, RECURRENT, STRIDED
from .networks import BLOCKS, FEATURES, OUTER, SIDE, STEPS, TOKENS
from .table import KERNEL, OTHER, Curve, effective

WIDTHS = tuple(range(1, 97))  # every one: odd widths have kernels of their own in some engines
SIDES = (4, 8, 32)  # pixels, besides SIDE: small maps fill kernels badly, large ones leave the cache
SMALL = 16  # channels of the layers that show what a node costs, at a map of
POINTS = 2  # pixels a side
FEW, MANY = 2, 6  # layers of them
HEADS = (2, 4)  # layers that read the same map
DEEP = 3  # depthwise layers in a row
SUMS = 4  # sums in a row
HEAVY = 256  # channels of layers with many weights, on a map of
HEAVY_SIDE = SIDES[0]  # pixels a side: little work for each weight
HEAVY_LAYERS = (1, 2, 4, 8)  # of 590 thousand weights each
PICTURE = (1, 3)  # channels, as first layers read them, with a kernel of
LARGE = 7  # pixels a side
LEAST = 0.25  # channels that any width costs: below that, times are noise
LEAST_NS = 1.0
PROPORTION = 0.5  # of a width, that making or reading it costs at least

Times = Mapping[str, float]


@dataclass(frozen=True)
class Family:
    """Networks by name, and the curves by kind of layer that follow from their nanoseconds.

    `whole` is what follows for a run, whatever its layers: fields of a staircase.
    """

    name: str
    networks: Mapping[str, Callable[[], Model]]
    curves: Callable[[Times], dict[str, Curve]]
    whole: Callable[[Times], dict[str, Any]] = lambda times: {}


def families(widths: Sequence[int] = WIDTHS) -> tuple[Family, ...]:
    """Return all families; the widths hold OUTER, against which the others count."""
    widths = tuple(sorted({*widths, OUTER}))
    return (_convolutions(widths), _pixels(widths), _products(widths), _dense(widths), _recurrent(widths))


def _pairs(kernel: int, widths: Sequence[int]) -> dict[str, Callable[[], Model]]:
    """Return the networks that tell of convolutions of one kernel."""
    found: dict[str, Callable[[], Model]] = {}
    for width in widths:
        found[f"pair {width}"] = partial(networks.there_and_back, width, kernel)
        found[f"twice {width}"] = partial(networks.read_twice, width, kernel)
    found["one pair"] = partial(networks.there_and_back, OUTER, kernel, blocks=1)
    for side in SIDES:
        for blocks in (1, BLOCKS):
            found[f"side {side} {blocks}"] = partial(
                networks.there_and_back, OUTER, kernel, blocks=blocks, side=side
            )
    for layers in (FEW, MANY):
        found[f"chain {layers}"] = partial(networks.chain, SMALL, kernel, layers=layers, side=POINTS)
    return found


def _pair_curve(times: Times, kernel: int, widths: Sequence[int]) -> Curve:
    taps, layers = kernel * kernel, 2 * BLOCKS
    whole = (times[f"pair {OUTER}"] - times["one pair"]) / 2  # a layer of OUTER to OUTER
    call = _call(times)
    work = max(whole - call, LEAST_NS)
    rates = {SIDE * SIDE: work / (SIDE * SIDE * taps * OUTER * OUTER)}
    for side in SIDES:
        one = _slope(times, f"side {side} ", (1, BLOCKS)) / 2
        rates[side * side] = max(one - call, LEAST_NS) / (side * side * taps * OUTER * OUTER)
    around = times[f"pair {OUTER}"] - layers * whole
    added = (times[f"twice {OUTER}"] - times[f"pair {OUTER}"]) / BLOCKS - whole  # the sum of the two
    unit = work / OUTER
    outputs, inputs = {}, {}
    for width in widths:
        both = (times[f"pair {width}"] - around) / BLOCKS - 2 * call
        read = (times[f"twice {width}"] - times[f"pair {width}"]) / BLOCKS - added - call
        outputs[width], inputs[width] = _split(width, both / unit, read / unit)
    return Curve(outputs, inputs, rates, call_ns=call)


def _call(times: Times) -> float:
    """Return what a node costs whatever its size: what a small layer takes beyond its multiply-adds."""
    side = SIDES[0]
    small, layer = _slope(times, "chain ", (FEW, MANY)), _slope(times, f"side {side} ", (1, BLOCKS)) / 2
    share = (POINTS * SMALL) ** 2 / (side * OUTER) ** 2  # of the larger layer's multiply-adds
    return max(0.0, (small - layer * share) / (1 - share))


def _split(width: int, both: float, read: float) -> tuple[float, float]:
    """Return what making and what reading channels costs, in channels: neither is next to nothing.

    Of few channels the two differ by less than their noise, and a layer that makes none cheaply hides in the other.
    """
    least = min(width * PROPORTION, both / 2)
    inputs = min(max(read, least), both - least)
    return _channels(both - inputs), _channels(inputs)


def _channels(found: float) -> float:
    return round(max(found, LEAST), 2)


def _convolutions(widths: Sequence[int]) -> Family:
    found = _pairs(3, widths)
    for side in (*SIDES, SIDE):
        for heads in HEADS:
            found[f"strided {side} {heads}"] = partial(networks.strided, heads=heads, side=side)

    pictures = tuple(width for width in PICTURE if width in widths)
    for width in pictures:
        found[f"large {width}"] = partial(networks.there_and_back, width, 3, back=LARGE)
    for layers in HEAVY_LAYERS:
        found[f"heavy {layers}"] = partial(networks.chain, HEAVY, 3, layers=layers, side=HEAVY_SIDE)

    def curves(times: Times) -> dict[str, Curve]:
        curve = _pair_curve(times, 3, widths)
        curve = replace(curve, taps={width: _tap(times, curve, width) for width in pictures})
        rates = {}
        for side in sorted({*SIDES, SIDE}):
            one = _slope(times, f"strided {side} ", HEADS)
            rates[side * side] = max(one - curve.call_ns, LEAST_NS) / (side * side * 9 * OUTER * OUTER)
        return {CONV: curve, STRIDED: replace(curve, macs_ns=rates)}

    return Family("convolutions", found, curves, lambda times: _run(times, curves(times)[CONV]))


def _tap(times: Times, curve: Curve, width: int) -> float:
    """Return how many inputs each further position of a kernel costs as much as, where it reads `width` channels."""
    more = (times[f"large {width}"] - times[f"pair {width}"]) / BLOCKS
    positions = SIDE * SIDE
    unit = positions * (LARGE * LARGE - KERNEL) * effective(curve.outputs, OUTER) * curve.rate(positions)
    return _channels(more / max(unit, LEAST_NS))


def _run(times: Times, curve: Curve) -> dict[str, Any]:
    """Return what a run takes besides its layers, and what many weights take besides their multiply-adds."""
    run = max(0.0, times[f"chain {FEW}"] - FEW * _slope(times, "chain ", (FEW, MANY)))
    pixels, weights = HEAVY_SIDE * HEAVY_SIDE, 9 * HEAVY * HEAVY
    layer = curve.call_ns + pixels * weights * curve.rate(pixels)
    extra = {
        layers * weights: max(0.0, (times[f"heavy {layers}"] - run) / layers - layer) / weights
        for layers in HEAVY_LAYERS
    }
    return {"run_ns": run, "weights_ns": {BLOCKS * 9 * OUTER * OUTER: 0.0, **extra}}


def _pixels(widths: Sequence[int]) -> Family:
    found = _pairs(1, widths)
    for width in widths:
        found[f"depthwise {width}"] = partial(networks.depthwise, width, layers=DEEP)
        for sums in (False, True):
            found[f"sums {width} {sums}"] = partial(networks.residual, width, layers=SUMS, sums=sums)
    for side in (*SIDES, SIDE):
        for layers in (1, DEEP):
            found[f"depthwise {side} {layers}"] = partial(networks.depthwise, OUTER, layers=layers, side=side)

    def curves(times: Times) -> dict[str, Curve]:
        curve = _pair_curve(times, 1, widths)
        return {
            POINTWISE: curve,
            DEPTHWISE: _depthwise_curve(times, curve.call_ns, widths),
            OTHER: _sum_curve(times, widths),
        }

    return Family("pixels", found, curves)


def _depthwise_curve(times: Times, call: float, widths: Sequence[int]) -> Curve:
    rates = {}
    for side in sorted({*SIDES, SIDE}):
        one = _slope(times, f"depthwise {side} ", (1, DEEP)) / BLOCKS
        rates[side * side] = max(one - call, LEAST_NS) / (side * side * 9 * OUTER)
    layers = DEEP * BLOCKS
    each = {w: (times[f"depthwise {w}"] - times[f"pair {w}"]) / layers - call for w in widths}
    unit = max(each[OUTER], LEAST_NS) / OUTER
    return Curve({width: _channels(ns / unit) for width, ns in each.items()}, {}, rates, call_ns=call)


def _sum_curve(times: Times, widths: Sequence[int]) -> Curve:
    each = {w: max(times[f"sums {w} True"] - times[f"sums {w} False"], LEAST_NS) / SUMS for w in widths}
    unit = float(np.median([ns / w for w, ns in each.items() if w >= OUTER // 2]))
    steps = {width: _channels(ns / unit) for width, ns in each.items()}
    return Curve(steps, {}, {SIDE * SIDE: unit / (SIDE * SIDE)})


def _slope(times: Times, title: str, counts: tuple[int, int]) -> float:
    """Return what one more of something takes, from the times with few and with many of them."""
    few, many = counts
    return (times[f"{title}{many}"] - times[f"{title}{few}"]) / (many - few)


def _products(widths: Sequence[int]) -> Family:
    return _halves("products", PRODUCT, networks.products, widths, positions=TOKENS, outer=OUTER)


def _dense(widths: Sequence[int]) -> Family:
    return _halves("dense", DENSE, networks.dense, widths, positions=1, outer=FEATURES)


def _halves(
    name: str, kind: str, build: Callable[..., Model], widths: Sequence[int], *, positions: int, outer: int
) -> Family:
    """Return a family whose layers' two widths count alike."""
    found: dict[str, Callable[[], Model]] = {f"pair {w}": partial(build, w) for w in widths}
    found["one pair"] = partial(build, OUTER, blocks=1)
    return Family(name, found, lambda times: {kind: _halved(times, widths, positions, outer)})


def _halved(times: Times, widths: Sequence[int], positions: int, outer: int) -> Curve:
    """Return a curve where making and reading channels count alike."""
    pair = max(times[f"pair {OUTER}"] - times["one pair"], LEAST_NS)
    around = times[f"pair {OUTER}"] - BLOCKS * pair
    unit = pair / 2 / OUTER
    steps = {w: _channels((times[f"pair {w}"] - around) / BLOCKS / 2 / unit) for w in widths}
    return Curve(steps, steps, {positions: unit / (positions * outer)})


def _recurrent(widths: Sequence[int]) -> Family:
    found: dict[str, Callable[[], Model]] = {f"units {w}": partial(networks.recurrent, w) for w in widths}
    found["half the steps"] = partial(networks.recurrent, OUTER, steps=STEPS // 2)

    def curves(times: Times) -> dict[str, Curve]:
        half = max(times[f"units {OUTER}"] - times["half the steps"], LEAST_NS)
        around = times[f"units {OUTER}"] - 2 * half
        unit = 2 * half / OUTER / (2 * OUTER)  # per unit, and per number that it multiplies
        steps = {w: _channels((times[f"units {w}"] - around) / unit / (OUTER + w)) for w in widths}
        return {RECURRENT: Curve(steps, {}, {STEPS: unit / (STEPS * 4)})}

    return Family("recurrent", found, curves)
