"""Batch norms, scales, shifts and factors go into the weights of the layer beside them."""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import attribute, set_attribute, standard
from ..affine import ELEMENTWISE, LAYERS, affine_of, layer, with_weights
from ..record import Rewrite, Rule
from ..site import Site, copy

SHIFT_LIMIT = 1e3  # of a shift folded into what reads it; beyond it, sums of large inputs lose their digits


def norm_after(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Fold the batch norm that alone reads a layer."""
    return _after(site, node, ("BatchNormalization",))


def scale_after(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Fold the constant scale or shift (a bias) that alone reads a layer."""
    return _after(site, node, ELEMENTWISE)


def _after(site: Site, node: onnx.NodeProto, ops: tuple[str, ...]) -> Rewrite | None:
    reader = site.reader(node.output[0], *ops)
    found = None if reader is None else layer(site, node)
    if reader is None or found is None:
        return None
    affine = affine_of(site, reader, node.output[0], channels=found.channels, rank=found.rank)
    if affine is None:
        return None
    weight, bias = found.after(affine)
    made = with_weights(site, node, weight, bias)
    made.output[0] = reader.output[0]
    return Rewrite((node, reader), (made,))


def scale_before(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Fold a constant scale and shift of a layer's input.

    A scale keeps padded zeros zero; a shift does not, so it is folded only where nothing is padded.
    """
    before = site.maker(node.input[0], *ELEMENTWISE, "BatchNormalization")
    if before is None or site.graph.only_reader(node.input[0]) is not node:
        return None
    source = next((name for name in before.input if name not in site.graph.initializers), None)
    found = layer(site, node)
    channels = None if found is None else found.inputs
    shape = None if source is None else site.shape(source)
    if found is None or channels is None or source is None or shape is None:
        return None
    if len(shape) != found.rank or shape[1] != channels:
        return None
    affine = affine_of(site, before, source, channels=channels, rank=found.rank)
    if affine is None or (np.abs(affine.shift) > SHIFT_LIMIT).any() or (affine.shift.any() and found.pads):
        return None
    weight, bias = found.before(affine)
    made = with_weights(site, node, weight, bias)
    made.input[0] = source
    return Rewrite((before, node), (made,))


def factors(site: Site, gemm: onnx.NodeProto) -> Rewrite | None:
    """Multiply alpha and beta into constant weights and bias, because integer kernels know neither."""
    made = copy(gemm)
    for position, name in ((1, "alpha"), (2, "beta")):
        factor = attribute(gemm, name, 1.0)
        value = site.constant(gemm.input[position]) if len(gemm.input) > position else None
        if factor != 1.0 and value is not None and value.dtype == np.float32:
            scaled = value * np.float32(factor)
            made.input[position] = site.graph.add_constant(f"{gemm.output[0]}_{name}", scaled)
            set_attribute(made, name, 1.0)
    return None if made == gemm else Rewrite((gemm,), (made,))


def gemm(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Turn MatMul of two matrices with constant weights into a Gemm, which has a place for a bias."""
    weight = site.constant(node.input[1]) if site.rank(node.input[0]) == 2 and site.opset >= 7 else None
    if weight is None or weight.ndim != 2 or not site.floats(node.input[0]):
        return None
    bias = site.graph.add_constant(f"{node.output[0]}_bias", np.zeros(weight.shape[1], np.float32))
    made = copy(node)
    made.op_type = "Gemm"
    made.input.append(bias)
    return Rewrite((node,), (made,))


def one_by_one(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Put constant scales and shifts of a constant into one: (x * a) * b is x * (a * b).

    Not where a large constant has to stay for others who read it: the file would hold both.
    """
    before = site.maker(node.input[0], node.op_type) or site.maker(node.input[1], node.op_type)
    if before is None or site.graph.only_reader(before.output[0]) is not node:
        return None
    inner, outer = _split(site, before), _split(site, node)
    if inner is None or outer is None:
        return None
    source, first, second = inner[0], inner[1], outer[1]
    if site.shared(inner[2]) or site.shared(outer[2]):
        return None
    with np.errstate(all="ignore"):
        joined = first * second if standard(node, "Mul") else first + second
    if joined.size > max(first.size, second.size) or not np.isfinite(joined).all():
        return None
    made = copy(node)
    made.input[:] = [source, site.graph.add_constant(f"{node.output[0]}_joined", joined)]
    return Rewrite((before, node), (made,))


def _split(site: Site, node: onnx.NodeProto) -> tuple[str, np.ndarray, str] | None:
    """Return what a constant scales or shifts, the constant, and its name."""
    for position in (1, 0):
        value = site.constant(node.input[position])
        if (
            value is not None
            and value.dtype == np.float32
            and node.input[1 - position] not in site.graph.initializers
        ):
            return node.input[1 - position], value, node.input[position]
    return None


LAYER_RULES = (
    Rule("gemm factors into weights", ("Gemm",), factors),
    Rule("matmul to gemm", ("MatMul",), gemm),
    Rule("batch norm into the layer before", LAYERS, norm_after),
    Rule("scale or bias into the layer before", LAYERS, scale_after),
)
# These come after formulas have been recognised, since they would take a factor out of one.
FACTOR_RULES = (
    Rule("scale or batch norm into the layer behind", LAYERS, scale_before),
    Rule("constants in a row", ("Mul", "Add"), one_by_one),
)
