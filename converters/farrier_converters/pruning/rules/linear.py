"""Convolutions and matrix products with constant weights."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ...graph.edit import Graph, set_attribute
from ..site import Kept, Layer, Site
from .products import product


def conv(site: Site) -> None:
    """Follow Conv: weights [out, in / groups, kernel...]."""
    weights = site.shape(1)
    groups = int(site.attribute("group", 1))
    out, each = weights[0], weights[1]
    incoming = site.along(0, 1)
    site.sums()
    if groups == 1:
        made = site.new(out)
        site.slot(1, 1, incoming, makes=False)
    elif each == 1:
        made = None if incoming is None else np.repeat(incoming, out // groups)
        _count_groups(site, incoming)
    else:
        made = _in_groups(site, incoming, groups, out, each)
    _finish(site, made, incoming, groups, kernel=weights[2:])


def transposed(site: Site) -> None:
    """Follow ConvTranspose: weights [in, out / groups, kernel...]."""
    weights, groups = site.shape(1), int(site.attribute("group", 1))
    inputs, each = weights[0], weights[1]
    incoming = site.along(0, 1)
    site.sums()
    if each == 1 and groups == inputs:
        made = incoming
        _count_groups(site, incoming)
        site.slot(1, 0, incoming, makes=True)
    else:
        table = site.new(each * groups).reshape(groups, each)
        site.units.tie_along(table, 0)  # each group loses the same channels
        made = table.reshape(-1)
        if incoming is not None:
            site.units.tie_along(incoming.reshape(groups, -1), 0)
        site.slot(1, 0, incoming, makes=False)
        site.slot(1, 1, table[0], makes=True)
    site.slot(2, 0, made, makes=True)
    site.set_along(1, made)
    _layer(site, made, incoming, groups, each * groups, inputs, weights[2:], at_input=True)


def gemm(site: Site) -> None:
    """Follow Gemm: A [M, K] times B [K, N], plus a bias."""
    if not site.stored(1):
        site.refuse("its weights are computed")
        return
    turned = bool(site.attribute("transB", 0))
    rows = 1 if turned else 0
    if site.attribute("transA", 0):
        site.refuse("its input is transposed")
        return
    incoming = site.along(0, 1)
    size = site.shape(1)
    made = site.new(size[1 - rows])
    site.sums()
    site.slot(1, rows, incoming, makes=False)
    site.slot(1, 1 - rows, made, makes=True)
    if site.has(2) and site.shape(2) and site.shape(2)[-1] == size[1 - rows]:
        site.slot(2, -1, made, makes=True)
    site.set_along(1, made)
    _layer(site, made, incoming, 1, size[1 - rows], size[rows], ())


def matmul(site: Site) -> None:
    """Follow MatMul with one constant matrix, or of two results (attention)."""
    if site.stored(1) and len(site.shape(1)) == 2:
        _dense(site, data=0, weights=1, reads=0)
    elif site.stored(0) and len(site.shape(0)) == 2:
        _dense(site, data=1, weights=0, reads=1)
    else:
        product(site)


def _dense(site: Site, *, data: int, weights: int, reads: int) -> None:
    """x [..., K] times W [K, N], or W [M, K] times x [..., K, N]; `reads` is the axis of W that meets x."""
    labels = site.labels(data)
    rank = len(site.shape(data))
    axis = rank - 1 if reads == 0 or rank == 1 else rank - 2
    size = site.shape(weights)
    site.sums(data)
    if labels is not None and labels.shape[axis] == 1:
        site.set(labels)  # rows that go through the same matrix
        kept = site.staying(size[1 - reads])
        site.found.frozen.append((site.number, kept, "channels that can go lie on another axis"))
        _layer(site, None, None, 1, size[1 - reads], size[reads], ())
        return
    incoming = site.along(data, axis)
    made = site.new(size[1 - reads])
    site.slot(weights, reads, incoming, makes=False)
    site.slot(weights, 1 - reads, made, makes=True)
    made_rank = len(site.made_shape().sizes)
    site.set_along(made_rank - 1 if reads == 0 or rank == 1 else made_rank - 2, made)
    _layer(site, made, incoming, 1, size[1 - reads], size[reads], ())


def _in_groups(site: Site, incoming: np.ndarray | None, groups: int, out: int, each: int) -> np.ndarray:
    """Many narrow groups go as wholes; of few wide ones, each loses the same channels."""
    made = site.new(out).reshape(groups, -1)
    read = None if incoming is None else incoming.reshape(groups, each)
    if read is not None and groups >= each:
        site.units.tie_along(read, 1)
        site.units.tie_along(made, 1)
        site.units.tie(read[:, :1], made)
        _count_groups(site, incoming, width=each)
        return made.reshape(-1)
    site.units.tie_along(made, 0)
    if read is not None:
        site.units.tie_along(read, 0)
        site.slot(1, 1, read[0], makes=False)
    return made.reshape(-1)


def _count_groups(site: Site, incoming: np.ndarray | None, *, width: int = 1) -> None:
    if incoming is None:
        return

    def change(_graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        set_attribute(node, "group", int(kept(incoming).sum()) // width)

    site.change(change)


def _finish(
    site: Site,
    made: np.ndarray | None,
    incoming: np.ndarray | None,
    groups: int,
    *,
    kernel: tuple[int, ...],
) -> None:
    site.slot(1, 0, made, makes=True)
    site.slot(2, 0, made, makes=True)
    site.set_along(1, made)
    weights = site.shape(1)
    _layer(site, made, incoming, groups, weights[0], weights[1] * groups, kernel)


def _layer(
    site: Site,
    made: np.ndarray | None,
    incoming: np.ndarray | None,
    groups: int,
    outputs: int,
    inputs: int,
    kernel: tuple[int, ...],
    *,
    at_input: bool = False,
) -> None:
    """Note what the layer's time depends on."""
    shape = site.shape(0) if at_input else site.made_shape().sizes
    convolves = bool(kernel)
    positions = math.prod(shape[2:]) if convolves else math.prod(shape[1:-1])
    taps = math.prod(kernel)
    if not convolves:
        kind = "dense"
    elif groups > 1 and groups == inputs:
        kind = "depthwise"
    else:
        kind = "pointwise" if taps == 1 else "conv"
    site.found.layers.append(
        Layer(
            site.number,
            site.name,
            kind,
            site.staying(outputs) if made is None else made,
            site.staying(inputs) if incoming is None else incoming,
            max(positions, 1),
            taps,
            groups,
        )
    )


RULES = {"Conv": conv, "ConvTranspose": transposed, "Gemm": gemm, "MatMul": matmul}
