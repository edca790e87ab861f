"""Paddings and means go into the convolution or pool that can do them itself."""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.bounds import bounds
from ...graph.edit import attribute, set_attribute, standard
from ..record import Rewrite, Rule
from ..site import Site, copy


def pad_into_conv(site: Site, pad: onnx.NodeProto) -> Rewrite | None:
    """Move zero padding of the spatial axes into the convolution that reads it."""
    conv = site.reader(pad.output[0], "Conv")
    if conv is None or conv.input[0] != pad.output[0]:
        return None
    return _moved(site, pad, conv, (pad, conv))


def pad_into_pool(site: Site, pad: onnx.NodeProto) -> Rewrite | None:
    """Move zero padding into the pool that reads it.

    A mean may count the zeros. A maximum ignores its own padding, so that zeros in it change nothing only where the
    values are no less than zero, and where each window holds a value.
    """
    pool = site.reader(pad.output[0], "AveragePool", "MaxPool")
    if pool is None or attribute(pool, "ceil_mode", 0):
        return None
    if pool.op_type == "AveragePool":
        counted = attribute(pool, "count_include_pad", 0) or not any(attribute(pool, "pads", ()))
        moved = _moved(site, pad, pool, (pad, pool)) if counted and site.opset >= 7 else None
        if moved is not None:
            set_attribute(moved.new[-1], "count_include_pad", 1)
        return moved
    maker = site.graph.producer.get(pad.input[0])
    ends = None if maker is None else bounds(site.graph, maker)
    if maker is None or ends is None or ends[0] != 0.0 or len(pool.output) > 1:
        return None
    return _moved(site, pad, pool, (maker, pad, pool))


def _moved(
    site: Site, pad: onnx.NodeProto, reader: onnx.NodeProto, old: tuple[onnx.NodeProto, ...]
) -> Rewrite | None:
    pads = _zero_pads(site, pad)
    if pads is None:
        return None
    rank = len(pads) // 2
    automatic = attribute(reader, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if any((*pads[:2], *pads[rank : rank + 2])) or min(pads) < 0 or automatic:
        return None
    own = attribute(reader, "pads", [0] * (2 * rank - 4))
    extra = [*pads[2:rank], *pads[rank + 2 :]]
    total = [int(a) + int(b) for a, b in zip(own, extra, strict=True)]
    if standard(reader, "AveragePool", "MaxPool"):
        window = list(attribute(reader, "kernel_shape")) * 2
        if any(padded >= size for padded, size in zip(total, window, strict=True)):
            return None  # engines refuse windows of padding alone
    made = copy(reader)
    made.input[0] = pad.input[0]
    set_attribute(made, "pads", total)
    set_attribute(made, "auto_pad", "NOTSET")
    return Rewrite(old, (*old[:-2], made))


def _zero_pads(site: Site, pad: onnx.NodeProto) -> list[int] | None:
    """Return the pads of every axis where Pad fills with a constant zero, else None."""
    if attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) > 3:
        return None
    if site.opset < 11:
        return None if attribute(pad, "value", 0.0) else list(attribute(pad, "pads", []))
    pads = site.constant(pad.input[1])
    fill = site.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    return None if pads is None or fill is None or fill.any() else pads.tolist()


def mean_to_pool(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Turn the mean over both image axes into the pool that integer kernels know."""
    axes = site.numbers(node, 1, "axes")
    if site.rank(node.input[0]) != 4 or not site.floats(node.input[0]) or axes is None:
        return None
    if sorted(a % 4 for a in axes) != [2, 3]:
        return None
    pool = copy(node)
    pool.op_type = "GlobalAveragePool"
    del pool.attribute[:]
    del pool.input[1:]
    if attribute(node, "keepdims", 1):
        return Rewrite((node,), (pool,))
    pool.output[0] = site.graph.fresh(f"{node.output[0]}_pooled")
    flatten = site.node("Flatten", [pool.output[0]], node.output, axis=1)
    return Rewrite((node,), (pool, flatten))


WINDOW_RULES = (
    Rule("mean to pool", ("ReduceMean",), mean_to_pool),
    Rule("pad into the convolution", ("Pad",), pad_into_conv),
    Rule("pad into the pool", ("Pad",), pad_into_pool),
)
