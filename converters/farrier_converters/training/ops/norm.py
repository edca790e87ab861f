"""Normalizations. Those that keep statistics take `training`."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ._node import Function, Node


def batch_norm(node: Node) -> Function:
    if not node.get("spatial", 1):
        raise node.refuse("it has statistics per position (spatial=0)")
    if node.outputs > 1:
        raise node.refuse("it returns the statistics of the batch; export the model for inference")
    return partial(_batch_norm, momentum=1 - node.get("momentum", 0.9), eps=node.get("epsilon", 1e-5))


def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    momentum: float,
    eps: float,
    training: bool = False,
    keep: bool = False,
) -> Tensor:
    """Normalize; in training by the batch, whose statistics move `mean` and `var` unless `keep` is set.

    ONNX's momentum is the share of the old statistics, torch's that of the new ones.
    """
    if training and keep:
        mean, var = mean.clone(), var.clone()
    return F.batch_norm(x, mean, var, scale, bias, training, momentum, eps)


def layer_norm(node: Node) -> Function:
    return partial(
        _layer_norm, axis=node.get("axis", -1), eps=node.get("epsilon", 1e-5), outputs=node.outputs
    )


def _layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int, eps: float, outputs: int
) -> Tensor | tuple[Tensor, ...]:
    shape = list(x.shape[axis:])
    scale = scale.expand(shape)
    y = F.layer_norm(x, shape, scale, None if bias is None else bias.expand(shape), eps)
    if outputs == 1:
        return y
    axes = list(range(axis % x.ndim, x.ndim))
    mean = x.mean(axes, keepdim=True)
    return y, mean, (x - mean).square().mean(axes, keepdim=True).add(eps).rsqrt()


def rms_norm(node: Node) -> Function:
    return partial(_rms_norm, axis=node.get("axis", -1), eps=node.get("epsilon", 1e-5))


def _rms_norm(x: Tensor, scale: Tensor, *, axis: int, eps: float) -> Tensor:
    axes = list(range(axis % x.ndim, x.ndim))
    return x * x.square().mean(axes, keepdim=True).add(eps).rsqrt() * scale


def instance_norm(node: Node) -> Function:
    eps = node.get("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=eps)


def group_norm(node: Node) -> Function:
    return partial(
        _group_norm, groups=node.get("num_groups"), eps=node.get("epsilon", 1e-5), per_group=node.opset < 21
    )


def _group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, groups: int, eps: float, per_group: bool
) -> Tensor:
    if per_group and len(scale) == groups != x.shape[1]:  # before opset 21: one value per group
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return F.group_norm(x, groups, scale, bias, eps)


def lp_norm(node: Node) -> Function:
    axis, p = node.get("axis", -1), node.get("p", 2)
    return lambda x: x / torch.linalg.vector_norm(x, p, axis, keepdim=True)


def local_response(node: Node) -> Function:
    size, alpha, beta, bias = (
        node.get(name, default)
        for name, default in (("size", 1), ("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return lambda x: F.local_response_norm(x, size, alpha, beta, bias)


def dropout(node: Node) -> Function:
    return partial(_dropout, ratio=node.get("ratio", 0.5), outputs=node.outputs)


def _dropout(
    x: Tensor,
    ratio_input: Tensor | None = None,
    _mode: Tensor | None = None,
    *,
    ratio: float,
    outputs: int,
    training: bool = False,
    keep: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    del keep
    p = ratio if ratio_input is None else float(ratio_input)
    y = F.dropout(x, p, training)
    return y if outputs == 1 else (y, torch.ones_like(x, dtype=torch.bool))


OPS = {
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "SimplifiedLayerNormalization": rms_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LpNormalization": lp_norm,
    "LRN": local_response,
    "Dropout": dropout,
}
STATEFUL = ("BatchNormalization", "Dropout")  # their functions take `training` and `keep`
