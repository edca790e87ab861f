"""Staircases for targets that were never measured: steps as wide as an engine's blocks of channels are known to be.

They say where not to stop, and nothing about how long anything takes: measure where you can.
"""

from __future__ import annotations

from .layers import DEPTHWISE, KINDS
from .table import OTHER, Curve, Staircase

WIDEST = 128  # channels; from there on the steps repeat
BLOCK = (
    16  # the widest block of channels among the engines that are known: of AVX-512, and of most accelerators
)
HALF_BLOCK = 8  # of 128-bit vectors, with two of them at a time
BLOCKS = {
    "x86_64": BLOCK,
    "aarch64": HALF_BLOCK,
}  # by architecture; another one gets BLOCK, which 8 and 4 divide
UNIT_NS = 0.02  # per multiply-add: a scale, so that times add up to something


def default(engine: str, precision: str, arch: str) -> Staircase:
    """Return the staircase to go by where none was measured; its `measured` is empty."""
    block = BLOCKS.get(arch, BLOCK)
    steps = {width: float(-(-width // block) * block) for width in range(1, WIDEST + 1)}
    channels = Curve(steps, steps, {1: UNIT_NS})
    alone = Curve(steps, {}, {1: UNIT_NS})
    return Staircase(
        engine, precision, arch, {k: alone if k in (DEPTHWISE, OTHER) else channels for k in KINDS}
    )
