"""Layouts: a stored tensor is the other graph's tensor with its axes permuted, `stored = tensor.transpose(order)`.

The other graph is the TFLite file for an importer, and the ONNX model for a compiler.

Sizes may hold BATCH, a prime that stands for the free number of rows: products and quotients of shapes then carry it
along, and whatever is a multiple of it depends on the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Order = tuple[int, ...]
Shape = tuple[int, ...]

BATCH = 1_000_003  # a prime, and no size of an axis that occurs
NCHW: Order = (0, 3, 1, 2)  # of a channels-last tensor that is stored channels-first
NCW: Order = (0, 2, 1)


class BatchError(ValueError):
    """The graph mixes rows, or holds a fixed number of them, so its batch cannot be free."""


def identity(rank: int) -> Order:
    """Return the order of the tensor itself."""
    return tuple(range(rank))


def free(size: int) -> bool:
    """Say whether a size depends on the number of rows."""
    return size > 0 and size % BATCH == 0


def permuted(shape: Sequence[int], order: Order) -> Shape:
    """Return the shape as stored in this order."""
    return tuple(shape[axis] for axis in order)


def relative(held: Order, wanted: Order) -> Order:
    """Return the permutation that makes `wanted` out of what is stored as `held`."""
    return tuple(held.index(axis) for axis in wanted)


def only_relabels(shape: Sequence[int], held: Order, wanted: Order) -> bool:
    """Say whether both orders lay the elements out alike, because all that moves has size 1."""
    return [a for a in held if shape[a] != 1] == [a for a in wanted if shape[a] != 1]


def carried(shape: Sequence[int], held: Order, target: Sequence[int]) -> Order | None:
    """Return an order for `target` that keeps elements where they are, if only axes of size 1 come or go."""
    before = [axis for axis, size in enumerate(shape) if size != 1]
    after = [axis for axis, size in enumerate(target) if size != 1]
    if [shape[a] for a in before] != [target[a] for a in after]:
        return None
    moved = [after[before.index(axis)] for axis in held if shape[axis] != 1]
    candidates = [o for o in (identity(len(target)), NCHW, NCW) if len(o) == len(target)]
    return next((o for o in candidates if [a for a in o if target[a] != 1] == moved), None)


def broadcast(a: Sequence[int], b: Sequence[int]) -> Shape:
    """Return the shape of an elementwise result; raises ValueError where the two do not fit."""
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    result = []
    for x, y in zip(left, right, strict=True):
        if x != y and 1 not in (x, y):
            if free(x) or free(y):
                raise BatchError(f"{list(a)} and {list(b)} do not broadcast")
            raise ValueError(f"shapes {list(a)} and {list(b)} do not broadcast")
        result.append(y if x == 1 else x)
    return tuple(result)


def reshaped(shape: Sequence[int], target: Sequence[int]) -> Shape:
    """Resolve the target of a reshape: one -1, and the number of rows where the file was made for one row."""
    total, sizes = math.prod(shape), [int(t) for t in target]
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise ValueError(f"{sizes} is no target of a reshape")
    if -1 in sizes:
        known = -math.prod(sizes)
        if known == 0 or total % known:
            raise _mismatch(shape, sizes)
        sizes[sizes.index(-1)] = total // known
    elif math.prod(sizes) != total:
        if not sizes or sizes[0] != 1 or math.prod(sizes) * BATCH != total:
            raise _mismatch(shape, sizes)
        sizes[0] = BATCH
    return tuple(sizes)


def _mismatch(shape: Sequence[int], sizes: Sequence[int]) -> ValueError:
    kind = BatchError if any(free(s) for s in shape) else ValueError
    return kind(f"{list(shape)} cannot be reshaped to {list(sizes)}")


def emitted(shape: Sequence[int]) -> list[int]:
    """Return a shape as ONNX's Reshape takes it: -1 for the one size that depends on the number of rows."""
    if sum(free(s) for s in shape) > 1:
        raise BatchError("two axes depend on the number of rows")
    return [-1 if free(s) else s for s in shape]


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """Return (output size, padding before, after) of TFLite's SAME: the odd one goes to the end."""
    out = -(-size // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return out, total // 2, total - total // 2


def valid_padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Return the output size of TFLite's VALID; raises ValueError where the kernel does not fit."""
    out = (size - (kernel - 1) * dilation - 1) // stride + 1
    if out < 1:
        raise ValueError("the kernel is larger than its input")
    return out
