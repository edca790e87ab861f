"""Operators that move, join or repeat numbers, whatever these stand for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..call import Call, KernelError, bounded, round_away, same_quantum, scale_of, zero_point


def reshape(call: Call) -> np.ndarray:
    """RESHAPE to an input of integers, or to the option."""
    wanted = call.integers(1) if call.optional(1) is not None else list(call.operator.options["shape"])
    return call.value(0).reshape(wanted)


def squeeze(call: Call) -> np.ndarray:
    """SQUEEZE the axes that the options name, or all of size 1."""
    values = call.value(0)
    axes = tuple(call.axis(a, values.ndim) for a in call.operator.options["axes"])
    return np.squeeze(values, axes or None)


def expand_dims(call: Call) -> np.ndarray:
    """EXPAND_DIMS."""
    return np.expand_dims(call.value(0), call.axis(call.integers(1)[0], call.value(0).ndim + 1))


def transpose(call: Call) -> np.ndarray:
    """TRANSPOSE."""
    return call.value(0).transpose(call.integers(1))


def concatenation(call: Call) -> np.ndarray:
    """CONCATENATION; only uint8 parts may have scales of their own. There is no fused activation."""
    parts = [call.value(i) for i in range(len(call.values))]
    axis = call.axis(call.option("axis"), parts[0].ndim)
    if call.quantized:
        given = [call.given(i) for i in range(len(parts))]
        if call.output.dtype == "uint8":
            parts = [_with_output_scale(call, i, part) for i, part in enumerate(parts)]
        elif not same_quantum([*given, call.output]):
            raise KernelError("its parts have different scales, which TFLite refuses")
    return np.concatenate(parts, axis)


def _with_output_scale(call: Call, position: int, part: np.ndarray) -> np.ndarray:
    """Rescale in float32; `ConcatenationWithScaling` in internal/reference/concatenation.h."""
    given = call.given(position)
    if same_quantum([given, call.output]):
        return part
    scale = scale_of(given) * (np.float32(1) / scale_of(call.output))
    offset = np.float32(-zero_point(given)) * scale
    quanta = round_away(part.astype(np.float32) * scale + offset) + zero_point(call.output)
    return np.clip(quanta, 0, 255).astype(np.uint8)


def pack(call: Call) -> np.ndarray:
    """PACK."""
    parts = [call.value(i) for i in range(len(call.values))]
    return np.stack(parts, call.axis(call.option("axis"), parts[0].ndim + 1))


def pad(call: Call) -> np.ndarray:
    """PAD with zero and PADV2 with a number; scaled integers are padded with the result's zero point."""
    values, sides = call.value(0), call.value(1).astype(np.int64)
    if sides.shape != (values.ndim, 2) or (sides < 0).any():
        raise KernelError("its pads do not fit the input")
    bounded([size + int(both) for size, both in zip(values.shape, sides.sum(axis=1), strict=True)])
    fill = zero_point(call.output) if call.quantized else 0
    if call.optional(2) is not None:
        fill = call.value(2).ravel()[0]
    return np.pad(values, [tuple(map(int, pair)) for pair in sides], constant_values=fill)


def mirror_pad(call: Call) -> np.ndarray:
    """MIRROR_PAD, with the edge or without it."""
    values, sides = call.value(0), call.value(1).astype(np.int64)
    symmetric = bool(call.option("mode"))
    limits = np.array(values.shape) - (0 if symmetric else 1)
    if sides.shape != (values.ndim, 2) or (sides < 0).any() or (sides > limits[:, None]).any():
        raise KernelError("its pads do not fit the input")
    pairs = [tuple(map(int, pair)) for pair in sides]
    return np.pad(values, pairs, mode="symmetric" if symmetric else "reflect")


def _block(call: Call) -> int:
    if call.option("block") < 1:
        raise KernelError("its block is less than 1")
    return call.option("block")


def space_to_depth(call: Call) -> np.ndarray:
    """SPACE_TO_DEPTH."""
    values, block = call.value(0), _block(call)
    n, h, w, c = values.shape
    parts = values.reshape(n, h // block, block, w // block, block, c)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // block, w // block, block * block * c)


def depth_to_space(call: Call) -> np.ndarray:
    """DEPTH_TO_SPACE."""
    values, block = call.value(0), _block(call)
    n, h, w, c = values.shape
    parts = values.reshape(n, h, w, block, block, c // (block * block))
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * block, w * block, c // (block * block))


def space_to_batch_nd(call: Call) -> np.ndarray:
    """SPACE_TO_BATCH_ND of one or two spatial axes; pads are zero points."""
    values, blocks, sides = call.value(0), call.integers(1), call.value(2).astype(np.int64)
    rank = len(blocks)
    if sides.shape != (rank, 2) or (sides < 0).any() or min(blocks, default=0) < 1:
        raise KernelError("its blocks do not fit the input")
    pairs = [(0, 0), *(tuple(map(int, p)) for p in sides), *[(0, 0)] * (values.ndim - rank - 1)]
    bounded([size + sum(pair) for size, pair in zip(values.shape, pairs, strict=True)])
    fill = zero_point(call.output) if call.quantized else 0
    values = np.pad(values, pairs, constant_values=fill)
    count, rest = values.shape[0], values.shape[rank + 1 :]
    sizes = [size // block for size, block in zip(values.shape[1 : rank + 1], blocks, strict=True)]
    parts = values.reshape(count, *(n for pair in zip(sizes, blocks, strict=True) for n in pair), *rest)
    inner, outer = range(2, 2 * rank + 1, 2), range(1, 2 * rank, 2)
    order = (*inner, 0, *outer, *range(2 * rank + 1, parts.ndim))
    return parts.transpose(order).reshape(-1, *sizes, *rest)


def batch_to_space_nd(call: Call) -> np.ndarray:
    """BATCH_TO_SPACE_ND of one or two spatial axes."""
    values, blocks, crops = call.value(0), call.integers(1), call.value(2).astype(np.int64)
    rank = len(blocks)
    if crops.shape != (rank, 2) or (crops < 0).any() or min(blocks, default=0) < 1:
        raise KernelError("its blocks do not fit the input")
    sizes, rest = values.shape[1 : rank + 1], values.shape[rank + 1 :]
    parts = values.reshape(*blocks, -1, *sizes, *rest)
    order = [rank, *(a for i in range(rank) for a in (rank + 1 + i, i)), *range(2 * rank + 1, parts.ndim)]
    whole = parts.transpose(order).reshape(-1, *(s * b for s, b in zip(sizes, blocks, strict=True)), *rest)
    cuts = [
        slice(int(a), size - int(b)) for (a, b), size in zip(crops, whole.shape[1 : rank + 1], strict=True)
    ]
    return whole[(slice(None), *cuts)]


def tile(call: Call) -> np.ndarray:
    """TILE."""
    values, counts = call.value(0), call.integers(1)
    bounded([size * count for size, count in zip(values.shape, counts, strict=True)])
    return np.tile(values, counts)


def broadcast_to(call: Call) -> np.ndarray:
    """BROADCAST_TO."""
    return np.broadcast_to(call.value(0), bounded(call.integers(1)))


def fill(call: Call) -> np.ndarray:
    """FILL."""
    return np.full(bounded(call.integers(0)), call.value(1).ravel()[0])


def shape(call: Call) -> np.ndarray:
    """SHAPE."""
    return np.array(call.value(0).shape, call.output.dtype)


SHAPES: dict[str, Callable[[Call], np.ndarray]] = {
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand_dims,
    "TRANSPOSE": transpose,
    "CONCATENATION": concatenation,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "MIRROR_PAD": mirror_pad,
    "SPACE_TO_DEPTH": space_to_depth,
    "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_BATCH_ND": space_to_batch_nd,
    "BATCH_TO_SPACE_ND": batch_to_space_nd,
    "TILE": tile,
    "BROADCAST_TO": broadcast_to,
    "FILL": fill,
    "SHAPE": shape,
}
