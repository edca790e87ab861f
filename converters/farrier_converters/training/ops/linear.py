"""Operators with weights: convolutions and matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ._node import Function, Node

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution or pool; pads are ONNX's (all begins, then all ends)."""

    strides: tuple[int, ...] | None
    dilations: tuple[int, ...] | None
    pads: tuple[int, ...] | None
    automatic: str

    @classmethod
    def of(cls, node: Node) -> Window:
        """Read the attributes that convolutions and pools share."""
        strides, dilations, pads = (node.get(name) for name in ("strides", "dilations", "pads"))
        return cls(
            tuple(strides) if strides else None,
            tuple(dilations) if dilations else None,
            tuple(pads) if pads else None,
            node.get("auto_pad", "NOTSET"),
        )

    def steps(self, rank: int) -> tuple[list[int], list[int]]:
        """Return strides and dilations for `rank` spatial dimensions."""
        return list(self.strides or (1,) * rank), list(self.dilations or (1,) * rank)

    def padding(self, sizes: torch.Size, kernel: list[int]) -> tuple[list[int], list[int]]:
        """Return what is padded before and after each spatial dimension of these sizes."""
        rank = len(kernel)
        if self.automatic in ("NOTSET", "VALID"):
            pads = list(self.pads or (0,) * 2 * rank) if self.automatic == "NOTSET" else [0] * 2 * rank
            return pads[:rank], pads[rank:]
        strides, dilations = self.steps(rank)
        totals = [
            max((-(-size // step) - 1) * step + (k - 1) * d + 1 - size, 0)
            for size, step, k, d in zip(sizes, strides, kernel, dilations, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        return (small, large) if self.automatic == "SAME_UPPER" else (large, small)


def pad_ends(x: Tensor, begins: list[int], ends: list[int], value: float = 0.0) -> Tensor:
    """Pad (or crop, where negative) the last dimensions of `x`."""
    if not any(begins) and not any(ends):
        return x
    pads = [p for pair in zip(reversed(begins), reversed(ends), strict=True) for p in pair]
    return F.pad(x, pads, value=value)


def conv(node: Node) -> Function:
    return partial(_conv, window=Window.of(node), group=node.get("group", 1))


def _conv(x: Tensor, w: Tensor, b: Tensor | None = None, *, window: Window, group: int) -> Tensor:
    rank = x.ndim - 2
    begins, ends = window.padding(x.shape[2:], list(w.shape[2:]))
    if begins != ends or min(begins) < 0:
        x, begins = pad_ends(x, begins, ends), [0] * rank
    strides, dilations = window.steps(rank)
    return CONVOLUTIONS[rank](x, w, b, strides, begins, dilations, group)


def conv_transpose(node: Node) -> Function:
    return partial(
        _conv_transpose,
        window=Window.of(node),
        group=node.get("group", 1),
        extra=node.get("output_padding"),
        shape=node.get("output_shape"),
    )


def _conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    window: Window,
    group: int,
    extra: list[int] | None,
    shape: list[int] | None,
) -> Tensor:
    rank = x.ndim - 2
    strides, dilations = window.steps(rank)
    extra = list(extra or (0,) * rank)
    full = TRANSPOSED[rank](x, w, b, strides, [0] * rank, extra, group, dilations)
    if shape is None and window.automatic in ("SAME_UPPER", "SAME_LOWER"):
        shape = [size * step for size, step in zip(x.shape[2:], strides, strict=True)]
    if shape is None:
        pads = list(window.pads or (0,) * 2 * rank)
        begins, ends = pads[:rank], pads[rank:]
    else:
        totals = [have - want for have, want in zip(full.shape[2:], shape[-rank:], strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        begins, ends = (small, large) if window.automatic == "SAME_UPPER" else (large, small)
    return pad_ends(full, [-p for p in begins], [-p for p in ends])


def gemm(node: Node) -> Function:
    return partial(
        _gemm,
        alpha=node.get("alpha", 1.0),
        beta=node.get("beta", 1.0),
        trans_a=bool(node.get("transA", 0)),
        trans_b=bool(node.get("transB", 0)),
    )


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float,
    beta: float,
    trans_a: bool,
    trans_b: bool,
) -> Tensor:
    result = (a.t() if trans_a else a) @ (b.t() if trans_b else b)
    if alpha != 1.0:
        result = result * alpha
    if c is None:
        return result
    return result + (c if beta == 1.0 else c * beta)


def matmul(_node: Node) -> Function:
    return torch.matmul


def einsum(node: Node) -> Function:
    equation = node.get("equation")
    return lambda *operands: torch.einsum(equation, *operands)


OPS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "Einsum": einsum,
}
