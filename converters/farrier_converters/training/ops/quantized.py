"""Quantizers with gradients: the arithmetic of the engine forward, the straight-through estimator backward.

Integers are floats of integer value here, so that gradients pass through whatever moves or clips them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ._node import Function, Node
from .elementwise import straight_round

LIMITS = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-32768, 32767)}


def quantize(node: Node) -> Function:
    if node.get("block_size", 0):
        raise node.refuse("it quantizes in blocks")
    return partial(_quantize, axis=node.get("axis", 1))


def _quantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int) -> Tensor:
    low, high = LIMITS[torch.uint8 if zero is None else zero.dtype]
    steps = straight_round(x / along(scale, axis, x.ndim))
    shift = 0.0 if zero is None else along(zero, axis, x.ndim).to(x)
    return (steps + shift).clamp(low, high)


def dequantize(node: Node) -> Function:
    if node.get("block_size", 0):
        raise node.refuse("it dequantizes blocks")
    return partial(_dequantize, axis=node.get("axis", 1))


def _dequantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int) -> Tensor:
    x = x.to(scale.dtype)
    if zero is not None:
        x = x - along(zero, axis, x.ndim).to(x)
    return x * along(scale, axis, x.ndim)


def along(values: Tensor, axis: int, rank: int) -> Tensor:
    """Lay one value per index of an axis along a tensor of this rank; a single value stays as it is."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


def fake_quantize(
    x: Tensor, scale: Tensor, zero: Tensor | None, *, axis: int, bounds: tuple[int, int] | None
) -> Tensor:
    """Quantize and dequantize in one step; `bounds` are the integers at which it saturates (None: the type's).

    The gradient of the scale is that of Esser et al., "Learned step size quantization", arXiv 1902.08153, with its
    factor 1 / sqrt(elements * levels).
    """
    low, high = bounds or LIMITS[torch.uint8 if zero is None else zero.dtype]
    shift: Any = 0.0
    if zero is not None:
        one = bool((zero == zero.reshape(-1)[0]).all())  # zero points stay on the processor (see `host`)
        shift = float(zero.reshape(-1)[0]) if one else along(zero, axis, x.ndim).to(x)
    result: Any = _FakeQuantize.apply(x, along(scale, axis, x.ndim), low - shift, high - shift, high - low)
    return result


class _FakeQuantize(torch.autograd.Function):
    """Few passes over the values forward and backward, with a single saved tensor of the input's size.

    `low` and `high` (numbers, or tensors beside the scale) bound the integers with the zero point taken off.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Any, high: Any, levels: int) -> Tensor:
        steps = x / scale
        ctx.save_for_backward(steps, scale)
        ctx.limits = (low, high, levels)
        return steps.round().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, scale = ctx.saved_tensors
        low, high, levels = ctx.limits
        gradient = gradients[0]
        to_x = _inside(gradient, steps, low - 0.5, high + 0.5)
        to_scale = None
        if ctx.needs_input_grad[1]:
            share = steps.numel() / scale.numel()
            factor = 1 / (share * max(levels, 1)) ** 0.5
            level = steps.round().clamp_(low, high).mul_(gradient)
            inside = steps.mul(to_x)
            to_scale = (level.sum_to_size(scale.shape) - inside.sum_to_size(scale.shape)).mul_(factor)
        return to_x, to_scale, None, None, None


def _inside(gradient: Tensor, steps: Tensor, low: Any, high: Any) -> Tensor:
    """Return the gradient where steps are between the bounds, zero elsewhere."""
    if isinstance(low, float):
        found: Tensor = torch.ops.aten.hardtanh_backward(gradient, steps, low, high)
        return found
    return gradient * ((steps > low) & (steps < high))


OPS = {"QuantizeLinear": quantize, "DequantizeLinear": dequantize}
