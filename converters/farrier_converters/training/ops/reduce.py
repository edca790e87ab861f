"""Reductions over axes, given as attribute or as input."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ._node import Function, Node, ints


def _reduction(kind: Function) -> Function:
    return lambda node: partial(
        _reduce,
        kind=kind,
        keep=bool(node.get("keepdims", 1)),
        fixed=node.get("axes"),
        nothing=bool(node.get("noop_with_empty_axes", 0)),
    )


def _reduce(
    x: Tensor,
    axes: Tensor | None = None,
    *,
    kind: Function,
    keep: bool,
    fixed: list[int] | None,
    nothing: bool,
) -> Tensor:
    chosen = ints(axes) if axes is not None else list(fixed or ())
    if not chosen:
        if nothing:
            return x
        chosen = list(range(x.ndim))
    return kind(x, chosen, keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def arg_max(node: Node) -> Function:
    return _find(node, torch.argmax)


def arg_min(node: Node) -> Function:
    return _find(node, torch.argmin)


def _find(node: Node, find: Function) -> Function:
    if node.get("select_last_index", 0):
        raise node.refuse("it selects the last of equal values")
    return partial(_arg, find=find, axis=node.get("axis", 0), keep=bool(node.get("keepdims", 1)))


def _arg(x: Tensor, *, find: Function, axis: int, keep: bool) -> Tensor:
    return find(x, axis, keep)


OPS = {
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).to(x.dtype)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduction(_product),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ArgMax": arg_max,
    "ArgMin": arg_min,
}
