"""Questions about one operator of a TFLite file that several accelerators' limits ask."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...tflite import schema
from ..costs import bytes_of
from ..site import Site

Question = Callable[[Site], object]
BYTES = ("int8", "uint8")
SPATIAL = {1, 2}  # axes of an NHWC tensor


def computed(*positions: int) -> Question:
    """Is one of these inputs computed, though the accelerator needs it as a constant?"""

    def ask(site: Site) -> object:
        found = (site.tensor(position) for position in positions)
        return next(
            (tensor.name or "one" for tensor in found if tensor is not None and tensor.data is None), ""
        )

    return ask


def fused_activation(site: Site) -> object:
    """Does it end in an activation function of its own?"""
    return schema.ACTIVATIONS.get(int(site.option("activation")), "activation") or ""


def foreign_type(*allowed: str) -> Question:
    """Is an activation of another element type?"""

    def ask(site: Site) -> object:
        return next((tensor.dtype for tensor in site.activations if tensor.dtype not in allowed), "")

    return ask


def float_constant(site: Site) -> object:
    """Is one of its constants stored in floats?"""
    return any(t.data is not None and t.dtype.startswith(("float", "bfloat")) for t in site.inputs)


def without_scale(site: Site) -> object:
    """Is there an 8-bit activation that no scale belongs to?"""
    return any(tensor.dtype in BYTES and len(tensor.scales) != 1 for tensor in site.activations)


def empty(site: Site) -> object:
    """Does an activation have no elements, or a size that is known only when the model runs?"""
    return any(not math.prod(tensor.shape) for tensor in site.activations)


def touches_batch(position: int = 1) -> Question:
    """Does a constant input name the outermost axis of four?"""
    return lambda site: len(site.shape()) == 4 and 0 in site.axes(position)


def stride(site: Site) -> tuple[int, int]:
    """Return the strides (height, width)."""
    return int(site.option("stride_h", 1)), int(site.option("stride_w", 1))


def dilation(site: Site) -> tuple[int, int]:
    """Return the dilations (height, width)."""
    return int(site.option("dilation_h", 1)), int(site.option("dilation_w", 1))


def output_bytes(site: Site) -> int:
    """Return the bytes of all outputs."""
    return sum(bytes_of(tensor) for tensor in site.outputs)


def enlargement(site: Site) -> float:
    """Return by how much a resize multiplies the height or the width, the larger of both."""
    before, after = site.shape(), site.output_shape
    if len(before) != 4 or len(after) != 4:
        return 1.0
    return max(after[axis] / max(before[axis], 1) for axis in SPATIAL)


def same_quantization(site: Site) -> bool:
    """Say whether inputs and outputs, constants too, all have one scale and zero-point."""
    pairs = {
        (*(float(s) for s in t.scales), *(int(z) for z in t.zero_points))
        for t in (*site.inputs, *site.outputs)
        if t.scales.size
    }
    return len(pairs) <= 1
