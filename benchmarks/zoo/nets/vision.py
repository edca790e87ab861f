"""Small networks trained here on CIFAR-10 pictures: an inverted-bottleneck net and a vision transformer."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

from .. import pictures
from ..net import Net, classifier
from ..store import Store
from ..training import Course, trained
from .cifar import NOTE, normalised

TRAINED = 6_000  # pictures; the other 4,000 evaluate
CALIBRATION = 512


def mobilenet(store: Store) -> Net:
    return _cifar(store, "mobilenet-cifar", _mobilenet, Course(10, rate=4e-3, flip=True))


def vit(store: Store) -> Net:
    return _cifar(store, "vit-cifar", _vit, Course(10, rate=1.5e-3, decay=0.05, flip=True))


def _cifar(store: Store, name: str, build: Any, course: Course) -> Net:
    rows, labels = pictures.cifar(store)
    x = normalised(rows)
    path = trained(store, name, build, x[:TRAINED], labels[:TRAINED], course, input_name="images")
    return classifier(
        name, path, {"images": x[:CALIBRATION]}, {"images": x[TRAINED:]}, labels[TRAINED:], note=NOTE
    )


def _mobilenet() -> Any:
    """Six inverted bottlenecks with squeeze-and-excitation and hard swish (Howard et al. 2019, in small)."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, *, swish: bool) -> None:
            super().__init__()
            wide, act = 4 * inputs, nn.Hardswish() if swish else nn.ReLU6()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
                act,
                nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
                nn.BatchNorm2d(wide),
                act,
            )
            self.squeeze, self.excite = nn.Conv2d(wide, wide // 4, 1), nn.Conv2d(wide // 4, wide, 1)
            self.out = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
            self.gated, self.residual = swish, inputs == outputs and stride == 1

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            if self.gated:
                gate = torch.relu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))
                y = y * nn.functional.hardsigmoid(self.excite(gate))
            y = self.out(y)
            return x + y if self.residual else y

    plan = ((16, 16, 1, False), (16, 24, 2, False), (24, 24, 1, False), (24, 40, 2, True), (40, 40, 1, True))
    blocks = [Bottleneck(i, o, s, swish=w) for i, o, s, w in plan]
    stem = [nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    tail = [nn.Conv2d(40, 128, 1, bias=False), nn.BatchNorm2d(128), nn.Hardswish()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*stem, *blocks, *tail, *head)


def _vit(width: int = 64, heads: int = 4, layers: int = 3) -> Any:
    """Patches of 4 x 4, pre-norm blocks, mean over patches (Dosovitskiy et al. 2021, in small)."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.norms[0](x)).view(-1, 64, 3, heads, width // heads)
            q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
            scores = (q @ k.transpose(2, 3)) / (width // heads) ** 0.5
            x = x + self.out((torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(-1, 64, width))
            return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 4, stride=4)
            self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2) + self.places
            return self.head(self.norm(self.blocks(x).mean(dim=1)))

    return Vit()
