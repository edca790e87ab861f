"""Operators that choose elements by index."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ._node import Function, Node


def gather(node: Node) -> Function:
    return partial(_gather, axis=node.get("axis", 0))


def _gather(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    axis = axis % x.ndim
    indices = _positive(indices, x.shape[axis]).to(x.device)
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _positive(indices: Tensor, size: int) -> Tensor:
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


def gather_elements(node: Node) -> Function:
    axis = node.get("axis", 0)
    return lambda x, indices: torch.gather(x, axis, _positive(indices, x.shape[axis]))


def gather_nd(node: Node) -> Function:
    if node.get("batch_dims", 0):
        raise node.refuse("it has batch dimensions")
    return lambda x, indices: x[tuple(indices.to(torch.int64).unbind(-1))]


def scatter_elements(node: Node) -> Function:
    axis, mode = node.get("axis", 0), node.get("reduction", "none")
    if mode not in ("none", "add"):
        raise node.refuse(f"it reduces by {mode}")

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        indices, updates = _positive(indices, x.shape[axis]), updates.to(x.dtype)
        return x.scatter(axis, indices, updates) if mode == "none" else x.scatter_add(axis, indices, updates)

    return run


def scatter_nd(node: Node) -> Function:
    mode = node.get("reduction", "none")
    if mode not in ("none", "add"):
        raise node.refuse(f"it reduces by {mode}")
    return lambda x, indices, updates: x.index_put(
        tuple(indices.to(torch.int64).unbind(-1)), updates.to(x.dtype), accumulate=mode == "add"
    )


def one_hot(node: Node) -> Function:
    axis = node.get("axis", -1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = int(depth.item())
        hot = torch.arange(count, device=indices.device) == _positive(indices, count).unsqueeze(-1)
        return torch.where(hot, values[1], values[0]).movedim(-1, axis)

    return run


def top_k(node: Node) -> Function:
    return partial(
        _top_k, axis=node.get("axis", -1), largest=bool(node.get("largest", 1)), fixed=node.get("k")
    )


def _top_k(
    x: Tensor, k: Tensor | None = None, *, axis: int, largest: bool, fixed: int | None
) -> tuple[Tensor, Tensor]:
    count = int(k.item()) if k is not None else int(fixed or 1)
    found = torch.topk(x, count, axis, largest)
    return found.values, found.indices


def cumulative_sum(node: Node) -> Function:
    return partial(_cumulative, exclusive=bool(node.get("exclusive", 0)), back=bool(node.get("reverse", 0)))


def _cumulative(x: Tensor, axis: Tensor, *, exclusive: bool, back: bool) -> Tensor:
    dim = int(axis.item())
    source = x.flip(dim) if back else x
    total = source.cumsum(dim)
    total = total - source if exclusive else total
    return total.flip(dim) if back else total


def trilu(node: Node) -> Function:
    keep = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=None: keep(x, 0 if k is None else int(k.item()))


def non_zero(_node: Node) -> Function:
    return lambda x: torch.nonzero(x).t()


OPS = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "OneHot": one_hot,
    "TopK": top_k,
    "CumSum": cumulative_sum,
    "Trilu": trilu,
    "NonZero": non_zero,
}
