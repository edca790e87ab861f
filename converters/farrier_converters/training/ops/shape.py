"""Operators that rearrange values, and those that compute with shapes.

Shapes are integer tensors on the processor, wherever the data lies: a chain of them never waits for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from ._node import Function, Node, ints


def shape(node: Node) -> Function:
    start, end = node.get("start", 0), node.get("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def size(_node: Node) -> Function:
    return lambda x: torch.tensor(x.numel())


def reshape(node: Node) -> Function:
    return partial(_reshape, zeros=bool(node.get("allowzero", 0)))


def _reshape(x: Tensor, wanted: Tensor, *, zeros: bool) -> Tensor:
    sizes = ints(wanted)
    if not zeros:
        sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(node: Node) -> Function:
    return partial(_flatten, axis=node.get("axis", 1))


def _flatten(x: Tensor, *, axis: int) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(x.shape[:axis].numel(), -1)


def transpose(node: Node) -> Function:
    order = node.get("perm")
    return lambda x: x.permute(order or tuple(reversed(range(x.ndim))))


def squeeze(node: Node) -> Function:
    return partial(_squeeze, fixed=node.get("axes"))


def _squeeze(x: Tensor, axes: Tensor | None = None, *, fixed: list[int] | None) -> Tensor:
    chosen = _axes(axes, fixed)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def unsqueeze(node: Node) -> Function:
    return partial(_unsqueeze, fixed=node.get("axes"))


def _unsqueeze(x: Tensor, axes: Tensor | None = None, *, fixed: list[int] | None) -> Tensor:
    chosen = _axes(axes, fixed) or []
    for axis in sorted(a % (x.ndim + len(chosen)) for a in chosen):
        x = x.unsqueeze(axis)
    return x


def _axes(given: Tensor | None, fixed: list[int] | None) -> list[int] | None:
    if given is not None:
        return ints(given.reshape(-1))
    return None if fixed is None else list(fixed)


def concat(node: Node) -> Function:
    axis = node.get("axis", 1)
    return lambda *xs: torch.cat(xs, axis)


def split(node: Node) -> Function:
    return partial(_split, axis=node.get("axis", 0), fixed=node.get("split"), parts=node.outputs)


def _split(
    x: Tensor, sizes: Tensor | None = None, *, axis: int, fixed: list[int] | None, parts: int
) -> tuple[Tensor, ...]:
    if sizes is not None or fixed is not None:
        return torch.split(x, ints(sizes if fixed is None else fixed), axis)
    return torch.split(x, -(-x.shape[axis] // parts), axis)


def slice_(node: Node) -> Function:
    return partial(_slice, fixed=tuple(node.get(name) for name in ("starts", "ends", "axes")))


def _slice(
    x: Tensor, *given: Tensor | None, fixed: tuple[Sequence[int] | None, Sequence[int] | None, Any]
) -> Tensor:
    found = [None if t is None else ints(t) for t in given] if given else list(fixed)
    starts, ends, axes, steps = (*found, *(None,) * (4 - len(found)))
    for number, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
        axis = axes[number] if axes else number
        step = steps[number] if steps else 1
        positions = range(x.shape[axis])[start:end:step]
        if step > 0:
            index: list[Any] = [slice(None)] * x.ndim
            index[axis] = slice(positions.start, max(positions.stop, positions.start), step)
            x = x[tuple(index)]
        else:
            order = torch.arange(positions.start, positions.stop, step, device=x.device) if positions else []
            x = x.index_select(axis, torch.as_tensor(order, dtype=torch.int64, device=x.device))
    return x


def expand(_node: Node) -> Function:
    return _expand


def _expand(x: Tensor, wanted: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(ints(wanted))))


def tile(_node: Node) -> Function:
    return lambda x, repeats: x.repeat(ints(repeats))


def constant_of_shape(node: Node) -> Function:
    stored = node.get("value")
    value = np.zeros(1, np.float32) if stored is None else np.array(numpy_helper.to_array(stored))
    filler = torch.from_numpy(value)
    return lambda wanted: filler.reshape(()).expand(ints(wanted)).clone()


def range_(_node: Node) -> Function:
    return lambda start, limit, step: torch.arange(
        start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device
    )


def depth_to_space(node: Node) -> Function:
    return partial(_depth_to_space, block=node.get("blocksize"), columns=node.get("mode", "DCR") == "CRD")


def _depth_to_space(x: Tensor, *, block: int, columns: bool) -> Tensor:
    n, c, h, w = x.shape
    inner = c // block**2
    if columns:
        x = x.reshape(n, inner, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        x = x.reshape(n, block, block, inner, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, inner, h * block, w * block)


def space_to_depth(node: Node) -> Function:
    if node.get("mode", "DCR") != "DCR":
        raise node.refuse("it orders channels by column")
    block = node.get("blocksize")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, c * block**2, h // block, w // block)

    return run


def identity(_node: Node) -> Function:
    return lambda x: x


def constant(node: Node) -> Function:
    raise node.refuse(
        f"its value is of a kind that is not covered ({onnx.helper.printable_node(node.proto)})"
    )


OPS = {
    "Shape": shape,
    "Size": size,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Expand": expand,
    "Tile": tile,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Identity": identity,
    "Constant": constant,
}
