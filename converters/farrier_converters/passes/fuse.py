"""Fold batch norms, scales, shifts and paddings into the convolution or Gemm beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..graph.canonical import canonical
from ..graph.edit import Graph, attribute, replace, set_attribute, standard
from ..graph.types import FLOAT, TensorType, infer
from ..model import Model
from . import Context, Pass

LINEAR = ("Conv", "ConvTranspose", "Gemm")
ELEMENTWISE = ("Mul", "Div", "Add", "Sub")
SCALE_LIMIT = 1e6  # of a folded factor; beyond it (a variance near zero) float32 weights lose their digits
SHIFT_LIMIT = 1e3  # of a shift folded into what reads it; beyond it, sums of large inputs lose their digits


@dataclass(frozen=True)
class FuseOptions:
    """No options."""


def run(model: Model, _options: FuseOptions, _context: Context) -> Model:
    """Return an equal graph (to float32 rounding) with fewer nodes."""
    graph = Graph(model)
    canonical(graph)
    types = infer(graph.without_weights())
    _means_to_pools(graph, types)
    _matmuls_to_gemms(graph, types)
    for gemm in [n for n in graph.nodes if standard(n, "Gemm")]:
        _apply_factors(graph, gemm)
    for pad in [n for n in graph.nodes if standard(n, "Pad")]:
        _fuse_pad(graph, pad)
    for node in [n for n in graph.nodes if standard(n, *LINEAR)]:
        while _fuse_next(graph, node):
            graph.index()
        while _fuse_previous(graph, node, types):
            graph.index()
    return graph.build()


def _fuse_next(graph: Graph, node: onnx.NodeProto) -> bool:
    """Fold the one reader of a linear node into its weights; says whether it could."""
    reader = graph.only_reader(node.output[0])
    weight = graph.constant(node.input[1])
    if reader is None or weight is None or weight.dtype != np.float32:
        return False
    channels = _channels(node, weight)
    rank = 2 if node.op_type == "Gemm" else weight.ndim
    bias = _bias(graph, node, channels)
    if channels is None or bias is None:
        return False
    affine = _affine(graph, reader, node.output[0], channels=channels, rank=rank)
    if affine is None:
        return False
    scale, shift = affine
    weight = weight * _along(scale, _output_axis(node), weight.ndim)
    _set_weights(graph, node, weight, bias=bias * scale + shift)
    graph.remove([reader])
    node.output[0] = reader.output[0]
    return True


def _fuse_previous(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> bool:
    """Fold a constant scale and shift of a linear node's input into its weights; says whether it could.

    A scale keeps padded zeros zero; a shift does not, so it is folded only where nothing is padded.
    """
    before = graph.producer.get(node.input[0])
    weight = graph.constant(node.input[1])
    if before is None or weight is None or weight.dtype != np.float32 or not standard(before, *ELEMENTWISE):
        return False
    source = next((name for name in before.input if graph.constant(name) is None), None)
    channels, outputs = _input_channels(node, weight), _channels(node, weight)
    bias = _bias(graph, node, outputs)
    alone = graph.only_reader(node.input[0]) is node
    if source is None or channels is None or bias is None or not alone:
        return False
    kind = types.get(source)
    rank = 2 if node.op_type == "Gemm" else weight.ndim
    if kind is None or kind.shape is None or len(kind.shape) != rank or kind.shape[1] != channels:
        return False
    affine = _affine(graph, before, source, channels=channels, rank=rank)
    if affine is None or (np.abs(affine[1]) > SHIFT_LIMIT).any() or (affine[1].any() and _pads(node)):
        return False
    scale, shift = (_per_input(node, weight, values) for values in affine)
    summed = tuple(axis for axis in range(weight.ndim) if axis != _output_axis(node))
    _set_weights(graph, node, weight * scale, bias=bias + (weight * shift).sum(axis=summed))
    graph.remove([before])
    node.input[0] = source
    return True


def _input_channels(node: onnx.NodeProto, weight: np.ndarray) -> int | None:
    if node.op_type == "Gemm":
        return None if attribute(node, "transA", 0) else weight.shape[1 - _output_axis(node)]
    return weight.shape[1] * attribute(node, "group", 1) if node.op_type == "Conv" else None


def _per_input(node: onnx.NodeProto, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay one value per input channel along the weights; each group of a convolution sees channels of its own."""
    if node.op_type == "Gemm":
        return _along(values, 1 - _output_axis(node), 2)
    groups = attribute(node, "group", 1)
    rows = np.repeat(values.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(*weight.shape[:2], *(1,) * (weight.ndim - 2))


def _pads(node: onnx.NodeProto) -> bool:
    automatic = attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return automatic or any(attribute(node, "pads", ()))


def _output_axis(node: onnx.NodeProto) -> int:
    """Return the weights' axis of output channels."""
    return 0 if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)) else 1


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])


def _channels(node: onnx.NodeProto, weight: np.ndarray) -> int | None:
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return weight.shape[_output_axis(node)] if plain else None
    if node.op_type == "ConvTranspose":
        return weight.shape[1] if attribute(node, "group", 1) == 1 else None
    return weight.shape[0]


def _bias(graph: Graph, node: onnx.NodeProto, channels: int | None) -> np.ndarray | None:
    if channels is None:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(channels)
    value = graph.constant(node.input[2])
    if value is None or value.size not in (1, channels) or value.shape[-1:] not in ((), (1,), (channels,)):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,))


def _apply_factors(graph: Graph, gemm: onnx.NodeProto) -> None:
    """Multiply alpha and beta into constant weights and bias, because integer kernels know neither."""
    for position, name in ((1, "alpha"), (2, "beta")):
        factor = attribute(gemm, name, 1.0)
        value = graph.constant(gemm.input[position]) if len(gemm.input) > position else None
        if factor != 1.0 and value is not None and value.dtype == np.float32:
            scaled = value * np.float32(factor)
            gemm.input[position] = graph.add_constant(f"{gemm.output[0]}_{name}", scaled)
            set_attribute(gemm, name, 1.0)


def _affine(
    graph: Graph,
    reader: onnx.NodeProto,
    source: str,
    *,
    channels: int,
    rank: int,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift per channel where `reader` computes source * scale + shift, else None."""
    if standard(reader, "BatchNormalization"):
        return _norm_affine(graph, reader, source)
    if not standard(reader, *ELEMENTWISE):
        return None
    position = list(reader.input).index(source)
    constant = graph.constant(reader.input[1 - position])
    if constant is None or constant.dtype != np.float32 or (position and reader.op_type in ("Sub", "Div")):
        return None
    value = _per_channel(constant.astype(np.float64), channels, rank)
    if value is None or not np.isfinite(value).all():
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if reader.op_type == "Div":
        return (1 / value, zero) if (np.abs(value) > 1 / SCALE_LIMIT).all() else None
    if reader.op_type == "Mul":
        return (value, zero) if (np.abs(value) < SCALE_LIMIT).all() else None
    return one, -value if reader.op_type == "Sub" else value


def _norm_affine(graph: Graph, norm: onnx.NodeProto, source: str) -> tuple[np.ndarray, np.ndarray] | None:
    values = [graph.constant(name) for name in norm.input[1:5]]
    trains = attribute(norm, "training_mode", 0) or any(norm.output[1:])
    old_training = graph.opset < 7 and not attribute(norm, "is_test", 0)
    whole = attribute(norm, "spatial", 1) == 0
    if norm.input[0] != source or trains or old_training or whole:
        return None
    gamma, beta, mean, variance = (None if v is None else v.astype(np.float64) for v in values)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    if not np.isfinite(scale).all() or (np.abs(scale) > SCALE_LIMIT).any():
        return None
    return scale, beta - mean * scale


def _per_channel(value: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """Return one number per channel (axis 1 of `rank`) where broadcasting means just that."""
    if value.size == 1 and value.ndim <= rank:
        return np.full(channels, value.reshape(()))
    wanted = (1,) * (value.ndim - rank + 1) + (channels,) + (1,) * (rank - 2)
    fits = value.shape in (wanted, (channels, *(1,) * (rank - 2)), (1, channels, *(1,) * (rank - 2)))
    return value.reshape(channels) if fits else None


def _set_weights(graph: Graph, node: onnx.NodeProto, weight: np.ndarray, *, bias: np.ndarray) -> None:
    names = [
        graph.add_constant(f"{node.output[0]}_weight", weight.astype(np.float32)),
        graph.add_constant(f"{node.output[0]}_bias", bias.astype(np.float32)),
    ]
    inputs = [node.input[0], *names]
    del node.input[:]
    node.input.extend(inputs)


def _fuse_pad(graph: Graph, pad: onnx.NodeProto) -> None:
    """Move zero padding of the spatial axes into the convolution that reads it."""
    conv = graph.only_reader(pad.output[0])
    pads = _zero_pads(graph, pad)
    if conv is None or pads is None or not standard(conv, "Conv") or conv.input[0] != pad.output[0]:
        return
    rank = len(pads) // 2
    outer = (*pads[:2], *pads[rank : rank + 2])
    automatic = attribute(conv, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if any(outer) or min(pads) < 0 or automatic:
        return
    own = attribute(conv, "pads", [0] * (2 * rank - 4))
    extra = [*pads[2:rank], *pads[rank + 2 :]]
    set_attribute(conv, "pads", [int(a) + int(b) for a, b in zip(own, extra, strict=True)])
    set_attribute(conv, "auto_pad", "NOTSET")
    replace(conv.input, pad.output[0], pad.input[0])
    graph.remove([pad])
    graph.index()


def _zero_pads(graph: Graph, pad: onnx.NodeProto) -> list[int] | None:
    """Return the pads of every axis where Pad fills with a constant zero, else None."""
    if attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) > 3:
        return None
    if graph.opset < 11:
        return None if attribute(pad, "value", 0.0) else list(attribute(pad, "pads", []))
    pads = graph.constant(pad.input[1])
    fill = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    return None if pads is None or fill is None or fill.any() else pads.tolist()


def _means_to_pools(graph: Graph, types: dict[str, TensorType]) -> None:
    """Turn the mean over both image axes into the pool that integer kernels know."""
    for node in [n for n in graph.nodes if standard(n, "ReduceMean")]:
        kind = types.get(node.input[0])
        axes = attribute(node, "axes")
        if axes is None and len(node.input) > 1:
            value = graph.constant(node.input[1])
            axes = None if value is None else value.tolist()
        rank_four = kind is not None and kind.dtype == FLOAT and len(kind.shape or ()) == 4
        if not rank_four or axes is None or sorted(a % 4 for a in axes) != [2, 3]:
            continue
        if not attribute(node, "keepdims", 1):
            pooled = graph.fresh(f"{node.output[0]}_pooled")
            graph.add_node("Flatten", [pooled], node.output[0], axis=1)
            node.output[0] = pooled
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]
        del node.input[1:]
    graph.index()


def _matmuls_to_gemms(graph: Graph, types: dict[str, TensorType]) -> None:
    """Turn MatMul of two matrices with constant weights, and the Add after it, into one Gemm."""
    for node in [n for n in graph.nodes if standard(n, "MatMul")]:
        kind, weight = types.get(node.input[0]), graph.constant(node.input[1])
        if kind is None or kind.dtype != FLOAT or len(kind.shape or ()) != 2 or weight is None:
            continue
        if weight.ndim == 2 and graph.opset >= 7:
            node.op_type = "Gemm"
            node.input.append(
                graph.add_constant(f"{node.output[0]}_bias", np.zeros(weight.shape[1], np.float32))
            )


FUSE = Pass("fuse", FuseOptions, run)
