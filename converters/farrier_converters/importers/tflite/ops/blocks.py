"""Images and sequences cut into blocks along the batch, which is how TFLite writes a dilated convolution."""

from __future__ import annotations

import math

import numpy as np

from ..builder import Builder
from ._operation import Handler, Operation, UnsupportedError


def _amounts(op: Operation) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the size of a block and what is added (or cropped) on each side, for each axis between."""
    block, pairs = op.integers(1), op.constant(2)
    axes = op.input(0).rank - 2
    if axes not in (1, 2) or len(block) != axes or pairs.shape != (axes, 2):
        raise UnsupportedError("only images and sequences can be cut into blocks")
    amounts = [(int(a), int(z)) for a, z in pairs]
    if min(block) < 1 or min(min(pair) for pair in amounts) < 0:
        raise ValueError("its blocks are not possible")
    return block, amounts


def _around(amounts: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    """Return amounts as (top, left, bottom, right); a sequence has a height of one."""
    (top, bottom), (left, right) = ([(0, 0)] * (2 - len(amounts))) + amounts
    return top, left, bottom, right


def _space_to_batch(b: Builder, op: Operation) -> None:
    x = op.input(0)
    block, pads = _amounts(op)
    n, *sizes, channels = x.shape
    sizes = [size + sum(pair) for size, pair in zip(sizes, pads, strict=True)]
    if any(size % cut for size, cut in zip(sizes, block, strict=True)):
        raise ValueError("the blocks do not fit")
    befores, afters = zip(*pads, strict=True)
    amounts = b.integers("pads", [0, *befores, 0, 0, *afters, 0])
    name = b.node("Pad", [b.get(x), amounts, b.constant("zero", np.float32(0))], f"{op.output.name}/pad")
    parts = [size // cut for size, cut in zip(sizes, block, strict=True)]
    split = [v for pair in zip(parts, block, strict=True) for v in pair]
    name = b.reshape(name, (n, *split, channels), f"{op.output.name}/split")
    axes = range(len(block))
    perm = [*(2 + 2 * a for a in axes), 0, *(1 + 2 * a for a in axes), 2 * len(block) + 1]
    name = b.node("Transpose", [name], f"{op.output.name}/blocks", perm=perm)
    shape = (math.prod(block) * n, *parts, channels)
    b.put(op.output, b.reshape(name, shape, op.output.name), None, shape)
    op.output.blocked = (x, (block[-2] if len(block) > 1 else 1, block[-1]), _around(pads))


def _batch_to_space(b: Builder, op: Operation) -> None:
    x = op.input(0)
    block, crops = _amounts(op)
    if x.unblock is not None:
        x.unblock(op.output, _around(crops))
        return
    n, *sizes, channels = x.shape
    if n % math.prod(block):
        raise ValueError("the blocks do not fit")
    n //= math.prod(block)
    count = len(block)
    name = b.reshape(b.get(x), (*block, n, *sizes, channels), f"{op.output.name}/split")
    pairs = [v for a in range(count) for v in (count + 1 + a, a)]
    name = b.node("Transpose", [name], f"{op.output.name}/whole", perm=[count, *pairs, 2 * count + 1])
    sizes = [size * cut for size, cut in zip(sizes, block, strict=True)]
    name = b.reshape(name, (n, *sizes, channels), f"{op.output.name}/uncropped")
    starts, ends = zip(*crops, strict=True)
    stops = [size - end for size, end in zip(sizes, ends, strict=True)]
    bounds = (starts, stops, range(1, count + 1))
    name = b.node("Slice", [name, *(b.integers("bounds", v) for v in bounds)], op.output.name)
    left = [stop - start for stop, start in zip(stops, starts, strict=True)]
    b.put(op.output, name, None, (n, *left, channels))


BLOCKS: dict[str, Handler] = {"SPACE_TO_BATCH_ND": _space_to_batch, "BATCH_TO_SPACE_ND": _batch_to_space}
