"""Pools over sliding windows and over whole pictures."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ._node import Function, Node
from .linear import Window, pad_ends

MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(node: Node) -> Function:
    if node.outputs > 1:
        raise node.refuse("it returns indices")
    return partial(
        _max_pool,
        kernel=list(node.get("kernel_shape")),
        window=Window.of(node),
        ceil=bool(node.get("ceil_mode", 0)),
    )


def _max_pool(x: Tensor, *, kernel: list[int], window: Window, ceil: bool) -> Tensor:
    rank = len(kernel)
    strides, dilations = window.steps(rank)
    begins, ends = window.padding(x.shape[2:], kernel)
    if begins != ends or any(2 * p > k for p, k in zip(begins, kernel, strict=True)):
        x, begins = pad_ends(x, begins, ends, float("-inf")), [0] * rank
    return MAXIMA[rank](x, kernel, strides, begins, dilations, ceil)


def average_pool(node: Node) -> Function:
    if any(d != 1 for d in node.get("dilations", ())):
        raise node.refuse("it is dilated")
    return partial(
        _average_pool,
        kernel=list(node.get("kernel_shape")),
        window=Window.of(node),
        ceil=bool(node.get("ceil_mode", 0)),
        padded=bool(node.get("count_include_pad", 0)),
    )


def _average_pool(x: Tensor, *, kernel: list[int], window: Window, ceil: bool, padded: bool) -> Tensor:
    rank = len(kernel)
    strides, _ = window.steps(rank)
    begins, ends = window.padding(x.shape[2:], kernel)
    pool = MEANS[rank]
    if begins == ends and all(2 * p <= k for p, k in zip(begins, kernel, strict=True)):
        return pool(x, kernel, strides, begins, ceil, padded)
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    counts = pad_ends(ones, begins, ends, float(padded))
    return pool(pad_ends(x, begins, ends), kernel, strides, [0] * rank, ceil) / pool(
        counts, kernel, strides, [0] * rank, ceil
    )


def lp_pool(node: Node) -> Function:
    if any(d != 1 for d in node.get("dilations", ())) or node.get("ceil_mode", 0):
        raise node.refuse("it is dilated or rounds its size up")
    p, kernel, window = node.get("p", 2), list(node.get("kernel_shape")), Window.of(node)

    def run(x: Tensor) -> Tensor:
        strides, _ = window.steps(len(kernel))
        padded = pad_ends(x.abs() ** p, *window.padding(x.shape[2:], kernel))
        return (MEANS[len(kernel)](padded, kernel, strides) * torch.Size(kernel).numel()) ** (1 / p)

    return run


def global_average(_node: Node) -> Function:
    return lambda x: x.mean(list(range(2, x.ndim)), keepdim=True)


def global_maximum(_node: Node) -> Function:
    return lambda x: x.amax(list(range(2, x.ndim)), keepdim=True)


OPS = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_maximum,
}
