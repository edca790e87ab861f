"""Networks with random weights as torch's exporter writes them: formulas, batch norms and shape arithmetic included.

These are unfused on purpose (`do_constant_folding=False`), in the operator set that the caller names.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable

import onnx
import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.size()
        size = width // self.heads
        parts = (
            layer(x).view(batch, length, self.heads, size) for layer in (self.queries, self.keys, self.values)
        )
        q, k, v = (part.transpose(1, 2) for part in parts)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(size), -1)
        return self.out((weights @ v).transpose(1, 2).contiguous().view(batch, length, width))


class Encoder(nn.Module):
    """A pre-norm transformer encoder with a classifier on its mean."""

    def __init__(self, width: int = 128, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.attention = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.wide = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.narrow = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.classes = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, attention in enumerate(self.attention):
            x = x + attention(self.norms[2 * number](x))
            hidden = functional.gelu(self.wide[number](self.norms[2 * number + 1](x)))
            x = x + self.narrow[number](hidden)
        return self.classes(x.mean(1))


class Inverted(nn.Module):
    """An inverted residual with squeeze and excitation (Howard et al., ICCV 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide // 4, 1), nn.ReLU(), nn.Conv2d(wide // 4, wide, 1)
        )
        self.end = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        y = self.end(y * functional.hardsigmoid(self.gate(y)))
        return x + y if self.residual else y


def mobilenet_v3() -> nn.Module:
    """A small relative of MobileNetV3 for pictures of 64 x 64."""
    blocks = [Inverted(*sizes) for sizes in ((16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 40, 1))]
    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10)]
    return nn.Sequential(*stem, *blocks, *head)


class Next(nn.Module):
    """A block of ConvNeXt (Liu et al., CVPR 2022): transposes around a layer norm and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.gelu(self.wide(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Three blocks of ConvNeXt on pictures of 64 x 64."""
    blocks = [Next(48) for _ in range(3)]
    return nn.Sequential(
        nn.Conv2d(3, 48, 4, 4), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)
    )


def export(build: Callable[[], nn.Module], shape: tuple[int, ...], *, opset: int) -> onnx.ModelProto:
    """Return a network with seeded weights and statistics as torch's TorchScript exporter writes it, of free batch."""
    torch.manual_seed(0)
    module = build().eval()
    for norm in module.modules():
        if (
            isinstance(norm, nn.BatchNorm2d)
            and norm.running_mean is not None
            and norm.running_var is not None
        ):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 2)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.randn(shape),),
            content,  # pyright: ignore[reportArgumentType]
            opset_version=opset,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}},
            do_constant_folding=False,
        )
    return onnx.load_from_string(content.getvalue())


SUBJECTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "encoder": (Encoder, (1, 32, 128)),
    "mobilenet-v3": (mobilenet_v3, (1, 3, 64, 64)),
    "convnext": (convnext, (1, 3, 64, 64)),
}
