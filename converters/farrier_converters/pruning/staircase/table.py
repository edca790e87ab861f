"""A target's latency staircase: for each kind of layer, the time of each width against that of a wide one.

Channel counts off an engine's step make networks slower although they compute less: a convolution of 30 channels took
1.7 times as long as one of 32. The table is measured once per target, engine and precision (`measure.py`). No I/O and
no graph here: numbers in, milliseconds out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

PERIOD = 32  # channels: beyond the widest measured one, the steps of the last PERIOD widths repeat
TOLERANCE = 0.02  # of a time: widths whose times differ by less cost the same
PAYS = 1 / 3  # of the share of channels that goes, which the time has to fall by at least
OTHER = "other"  # the kind of work that has no weights: element by element
NS_PER_MS = 1e6
KERNEL = 9  # positions of the kernels that spatial convolutions are measured with
LIKE = {"transposed": "conv", "strided": "conv", "product": "dense"}  # whose curve serves a kind without one


def effective(steps: Mapping[int, float], width: int) -> float:
    """Return the width that `width` channels cost as much as: the next measured one above counts.

    Without steps every channel costs the same. Beyond the widest measured one, the last steps repeat.
    """
    if not steps or width < 1:
        return float(max(width, 0))
    widest = max(steps)
    periods = max(0, -(-(width - widest) // PERIOD))
    ordered = sorted(steps)
    found = steps[ordered[bisect_left(ordered, max(width - periods * PERIOD, 1))]]
    return found + periods * PERIOD


def between(known: Mapping[int, float], at: int) -> float:
    """Return the value at a number: interpolated over logarithms between known ones, that of the nearest outside."""
    if not known:
        return 0.0
    ordered = sorted(known)
    above = bisect_left(ordered, at)
    if above in (0, len(ordered)):
        return known[ordered[min(above, len(ordered) - 1)]]
    low, high = ordered[above - 1], ordered[above]
    share = math.log(at / low) / math.log(high / low)
    return known[low] * (1 - share) + known[high] * share


@dataclass(frozen=True)
class Curve:
    """For one kind of layer: the width, of outputs and of inputs, that each width costs as much as, and the rates.

    `outputs[w]` is the *effective* number of output channels of a layer with `w` of them: its time over the time per
    channel of a wide layer. It is more than `w` where the engine fills up blocks, or takes another kernel. `inputs`
    likewise. `macs_ns[p]` is the time of one multiply-add in a wide layer with `p` output positions (between measured
    numbers of positions the rate is interpolated over their logarithm). `element_ns` is the time per element of the
    result that no multiply-add explains (in integers, its rounding), and `call_ns` that of a node whatever its size.
    `taps[w]` is the effective number of inputs for each position that a kernel has beyond KERNEL, where it reads few
    channels: engines that fill up the whole of what an output is summed from fill up less of a larger kernel.
    """

    outputs: Mapping[int, float] = field(default_factory=dict)
    inputs: Mapping[int, float] = field(default_factory=dict)
    macs_ns: Mapping[int, float] = field(default_factory=lambda: {1: 0.01})
    element_ns: float = 0.0
    call_ns: float = 0.0
    taps: Mapping[int, float] = field(default_factory=dict)

    def rate(self, positions: int) -> float:
        """Return the nanoseconds of one multiply-add where the result has that many positions."""
        return between(self.macs_ns, positions)

    def cost_ns(self, *, outputs: int, inputs: int, positions: int, kernel: int, groups: int) -> float:
        """Return the nanoseconds of one layer (see `Staircase.layer_cost`)."""
        groups = max(groups, 1)
        if groups > 1 and groups == inputs:  # depthwise: only one width
            wide, deep = effective(self.outputs, outputs), 1.0
        else:
            wide = groups * effective(self.outputs, -(-outputs // groups))
            deep = effective(self.inputs, -(-inputs // groups))
        depth = kernel * deep
        if kernel > KERNEL and groups == 1 and inputs <= max(self.taps, default=0):
            depth = KERNEL * deep + (kernel - KERNEL) * effective(self.taps, inputs)
        multiplications = positions * wide * depth
        return multiplications * self.rate(positions) + positions * wide * self.element_ns + self.call_ns


@dataclass(frozen=True)
class Staircase:
    """The curves of one engine and precision on one machine, by kind of layer (see `layers.KINDS`).

    `measured` is the date (ISO 8601) of the measuring, or "" for a default that was never measured on the target.
    `run_ns` is the time of one run whatever the network. `weights_ns[n]` is what each weight takes besides its
    multiply-adds in a network of `n` weights: next to nothing while a core's cache holds them all. `weight_ns` is that
    of the network at hand (see `of_size`).
    """

    engine: str
    precision: str
    machine: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    version: str = ""  # of the engine, with its name
    measured: str = ""
    threads: int = 1
    run_ns: float = 0.0
    weights_ns: Mapping[int, float] = field(default_factory=dict)
    weight_ns: float = 0.0

    def of_size(self, weights: int) -> Staircase:
        """Return the staircase for the layers of a network with that many weights."""
        return replace(self, weight_ns=between(self.weights_ns, max(weights, 1)))

    def curve(self, kind: str) -> Curve:
        """Return the curve of a kind of layer, or of the kind most like it; one without steps where neither is."""
        return self.curves.get(kind) or self.curves.get(LIKE.get(kind, kind)) or Curve()

    def layer_cost(
        self, kind: str, *, outputs: int, inputs: int, positions: int, kernel: int, groups: int
    ) -> float:
        """Return the milliseconds of one layer at batch 1.

        `outputs` and `inputs` are channels (features of a dense layer, units of a recurrent one), `positions` the
        pixels or time steps of the result, `kernel` the positions of the kernel (9 for 3 x 3), `groups` as in ONNX
        (all channels for a depthwise convolution, 1 for a dense layer).
        """
        if outputs < 1 or inputs < 1:
            return 0.0
        found = self.curve(kind).cost_ns(
            outputs=outputs, inputs=inputs, positions=positions, kernel=kernel, groups=groups
        )
        weights = kernel * outputs * (inputs / max(groups, 1))
        return (found + weights * self.weight_ns) / NS_PER_MS

    def good_widths(self, kind: str, most: int) -> list[int]:
        """Return, ascending, the widths up to `most` worth having: no larger one costs the same or less.

        They are the right edges of the steps, and always hold `most`. What counts is the cost of a layer that
        makes that many channels together with that of one that reads them. Where no steps are, a width counts when
        what it saves against the next is no noise, and at least a third of what would be in proportion.
        """
        curve, good = self.curve(kind), [most]
        bound = _both(curve, most)
        for width in range(most - 1, 0, -1):
            cost = _both(curve, width)
            if cost < bound * worth(width, good[-1]):
                good.append(width)
                bound = cost
        return good[::-1]


def worth(width: int, wider: int) -> float:
    """Return the share of the wider one's cost below which the narrower width is worth having."""
    return 1 - max(TOLERANCE, PAYS * (wider - width) / wider)


def _both(curve: Curve, width: int) -> float:
    """Return the cost of making and reading that many channels; a layer that keeps its channels has but one width."""
    if curve.outputs and not curve.inputs:
        return effective(curve.outputs, width)
    return effective(curve.outputs, width) + effective(curve.inputs, width)
