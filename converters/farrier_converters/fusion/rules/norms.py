"""Normalisations that were written as formulas become one operator.

(x - mean) / sqrt(mean((x - mean)^2) + epsilon), times a scale, plus a shift: over the last axes it is
LayerNormalization (operator set 17), over all axes behind the channels InstanceNormalization; without the mean, over
the last axes, RMSNormalization (operator set 23).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from ...graph.edit import standard
from ..record import Rewrite, Rule
from ..site import Site


@dataclass(frozen=True)
class _Norm:
    """A normalisation without scale and shift: of `source` along `axes` (not negative), ending in `result`."""

    source: str
    axes: tuple[int, ...]
    rank: int
    epsilon: float
    centred: bool
    nodes: tuple[onnx.NodeProto, ...]
    result: str


def find(site: Site, root: onnx.NodeProto) -> Rewrite | None:
    """Find the square root in the middle; what comes before and behind it follows from there."""
    norm = _normalisation(site, root)
    if norm is None:
        return None
    last = norm.axes == tuple(range(norm.rank - len(norm.axes), norm.rank))
    kind, version = ("LayerNormalization", 17) if norm.centred else ("RMSNormalization", 23)
    found = [_over_last(site, norm, kind) if last and site.newest >= version else None]
    if norm.axes == tuple(range(2, norm.rank)) and norm.centred:
        found.append(_over_image(site, norm))
    # both fit a mean over the image: the better one takes in more, a scale per channel or one per pixel
    return max((f for f in reversed(found) if f is not None), key=lambda f: len(f.old), default=None)


def _normalisation(site: Site, root: onnx.NodeProto) -> _Norm | None:
    plus = site.maker(root.input[0], "Add")
    found = None if plus is None else site.with_scalar(plus)
    mean = None if found is None else site.maker(found[0], "ReduceMean")
    if plus is None or found is None or mean is None or not site.floats(root.output[0]):
        return None
    axes, rank = site.numbers(mean, 1, "axes"), site.rank(mean.input[0])
    squared = _squared(site, mean.input[0])
    end = _division(site, root, None if squared is None else squared[0])
    if squared is None or end is None or not axes or rank is None:
        return None
    value, square = squared
    nodes = (square, mean, plus, root, *end)
    norm = _Norm(
        value, tuple(sorted(a % rank for a in axes)), rank, found[1], False, nodes, end[-1].output[0]
    )
    centred = _centred(site, norm)
    norm = norm if centred is None else centred
    return norm if site.closed(norm.nodes, [norm.result]) else None


def _squared(site: Site, name: str) -> tuple[str, onnx.NodeProto] | None:
    node = site.maker(name, "Mul", "Pow")
    if node is None:
        return None
    twice = node.input[0] == node.input[1] if standard(node, "Mul") else site.scalar(node.input[1]) == 2.0
    return (node.input[0], node) if twice else None


def _division(site: Site, root: onnx.NodeProto, value: str | None) -> tuple[onnx.NodeProto, ...] | None:
    """Return the nodes that divide `value` by the root: a Div, or a Reciprocal and a Mul."""
    reader = site.reader(root.output[0], "Div", "Reciprocal", "Mul")
    if reader is None or value is None:
        return None
    if standard(reader, "Div"):
        if list(reader.input) == [value, root.output[0]]:
            return (reader,)
        inverse = reader if site.scalar(reader.input[0]) == 1.0 else None
    else:
        inverse = reader if standard(reader, "Reciprocal") else None
    product = None if inverse is None else site.reader(inverse.output[0], "Mul")
    fits = (
        product is not None
        and inverse is not None
        and sorted(product.input) == sorted([value, inverse.output[0]])
    )
    return (inverse, product) if fits and inverse is not None and product is not None else None


def _centred(site: Site, norm: _Norm) -> _Norm | None:
    """Return the norm that begins before the mean is taken off, where that is what its value is."""
    minus = site.maker(norm.source, "Sub")
    mean = None if minus is None else site.maker(minus.input[1], "ReduceMean")
    if minus is None or mean is None or mean.input[0] != minus.input[0]:
        return None
    axes = site.numbers(mean, 1, "axes")
    if not axes or tuple(sorted(a % norm.rank for a in axes)) != norm.axes:
        return None
    return replace(norm, source=minus.input[0], centred=True, nodes=(mean, minus, *norm.nodes))


def _over_last(site: Site, norm: _Norm, kind: str) -> Rewrite | None:
    shape = site.shape(norm.source)
    sizes = None if shape is None else shape[norm.rank - len(norm.axes) :]
    if sizes is None or None in sizes:
        return None
    wanted = tuple(size or 0 for size in sizes)
    norm, scale = _constant(site, norm, "Mul", wanted)
    norm, shift = _constant(site, norm, "Add", wanted) if norm.centred else (norm, None)
    inputs = [norm.source, *_parameters(site, norm, np.ones(wanted) if scale is None else scale, shift)]
    node = site.node(kind, inputs, [norm.result], axis=-len(norm.axes), epsilon=norm.epsilon)
    return Rewrite(norm.nodes, (node,))


def _over_image(site: Site, norm: _Norm) -> Rewrite | None:
    shape = site.shape(norm.source)
    channels = None if shape is None else shape[1]
    if channels is None:
        return None
    wanted = (channels, *(1,) * (norm.rank - 2))
    norm, scale = _constant(site, norm, "Mul", wanted)
    norm, shift = _constant(site, norm, "Add", wanted)
    if norm.rank == 3 and scale is None:
        return None  # as likely a layer norm of a sequence
    values = [np.ones(channels) if scale is None else scale, np.zeros(channels) if shift is None else shift]
    inputs = [norm.source, *_parameters(site, norm, *(value.reshape(channels) for value in values))]
    node = site.node("InstanceNormalization", inputs, [norm.result], epsilon=norm.epsilon)
    return Rewrite(norm.nodes, (node,))


def _constant(site: Site, norm: _Norm, op: str, wanted: tuple[int, ...]) -> tuple[_Norm, np.ndarray | None]:
    """Take in the one reader that scales or shifts by a constant of the normalised shape."""
    reader = site.reader(norm.result, op)
    other = None if reader is None else next((n for n in reader.input if n != norm.result), None)
    value = None if other is None else site.constant(other)
    if reader is None or value is None or value.dtype != np.float32:
        return norm, None
    leading = value.ndim - len(wanted)
    shape = value.shape[max(leading, 0) :]
    if value.ndim > norm.rank or any(size != 1 for size in value.shape[: max(leading, 0)]):
        return norm, None
    if value.size != 1 and shape != wanted:
        return norm, None
    spread = np.broadcast_to(value.reshape(shape) if value.size != 1 else value.reshape(()), wanted)
    return replace(norm, nodes=(*norm.nodes, reader), result=reader.output[0]), spread


def _parameters(site: Site, norm: _Norm, scale: np.ndarray, shift: np.ndarray | None) -> list[str]:
    values = (("scale", scale), ("shift", shift))
    return [
        site.graph.add_constant(f"{norm.result}_{name}", value.astype(np.float32))
        for name, value in values
        if value is not None
    ]


NORMS = Rule("normalisation from its formula", ("Sqrt",), find)
