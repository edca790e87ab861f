"""A target's latency staircase: for each kind of layer, the time of each width against that of a full one.

Channel counts off an engine's step make networks slower although they compute less: a convolution of 30 channels took
1.7 times as long as one of 32. The table is measured once per target, engine and precision (`measure.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Curve:
    """For one kind of layer: the width, of outputs and of inputs, that each width costs as much as.

    `outputs[w]` is the *effective* number of output channels of a layer with `w` of them: time over the time per
    channel of a wide layer. It is at least `w` where the engine fills up blocks; between measured widths, the next
    measured one above counts.
    """

    outputs: Mapping[int, float] = field(default_factory=dict)
    inputs: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Staircase:
    """The curves of a target by kind of layer: "conv", "pointwise", "depthwise", "dense", "recurrent"."""

    engine: str
    precision: str
    machine: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
