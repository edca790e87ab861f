"""Activation functions."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ._node import Function, Node


def _plain(function: Function) -> Function:
    return lambda _node: function


def leaky_relu(node: Node) -> Function:
    return partial(F.leaky_relu, negative_slope=node.get("alpha", 0.01))


def prelu(_node: Node) -> Function:
    return lambda x, slope: torch.where(x < 0, slope * x, x)


def elu(node: Node) -> Function:
    return partial(F.elu, alpha=node.get("alpha", 1.0))


def celu(node: Node) -> Function:
    return partial(F.celu, alpha=node.get("alpha", 1.0))


def selu(node: Node) -> Function:
    alpha, gamma = node.get("alpha", 1.6732631921768188), node.get("gamma", 1.0507010221481323)
    return lambda x: gamma * (x.clamp(min=0) + alpha * (x.clamp(max=0).exp() - 1))


def hard_sigmoid(node: Node) -> Function:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


def gelu(node: Node) -> Function:
    return partial(F.gelu, approximate=node.get("approximate", "none"))


def swish(node: Node) -> Function:
    alpha = node.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def thresholded_relu(node: Node) -> Function:
    alpha = node.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


def softmax(node: Node) -> Function:
    return _over_axis(node, F.softmax)


def log_softmax(node: Node) -> Function:
    return _over_axis(node, F.log_softmax)


def _over_axis(node: Node, function: Function) -> Function:
    """Before opset 13 the input is flattened to a matrix at the axis, which is 1 where not given."""
    if node.opset >= 13:
        return partial(function, dim=node.get("axis", -1))
    axis = node.get("axis", 1)
    return lambda x: function(x.flatten(axis % x.ndim), dim=-1).reshape(x.shape)


def clip(node: Node) -> Function:
    return partial(_clip, fixed=(node.get("min"), node.get("max")))


def _clip(
    x: Tensor,
    low: Tensor | None = None,
    high: Tensor | None = None,
    *,
    fixed: tuple[float | None, float | None],
) -> Tensor:
    bounds = [b if t is None else t.item() for t, b in zip((low, high), fixed, strict=True)]
    return x if bounds == [None, None] else x.clamp(*bounds)


OPS = {
    "Relu": _plain(torch.relu),
    "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh),
    "Erf": _plain(torch.erf),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "HardSwish": _plain(F.hardswish),
    "Mish": _plain(F.mish),
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Elu": elu,
    "Celu": celu,
    "Selu": selu,
    "HardSigmoid": hard_sigmoid,
    "Gelu": gelu,
    "QuickGelu": lambda node: lambda x: x * torch.sigmoid(node.get("alpha", 1.702) * x),
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
    "Clip": clip,
}
