"""Small classifiers: depthwise and grouped convolutions, gates, shuffles, split maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pictures import conv


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3 x 3, then pointwise."""
    return nn.Sequential(conv(inputs, inputs, 3, stride, groups=inputs), conv(inputs, outputs, 1))


class Gate(nn.Module):
    """Squeeze and excitation: each channel scaled by what all channels are on average."""

    def __init__(self, width: int, squeezed: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.less, self.more, self.gate = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.more(F.relu(self.less(self.pool(x)))))


class DenseGate(nn.Module):
    """The same with dense layers, and a view back to a map."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.less, self.more = nn.Linear(width, squeezed), nn.Linear(squeezed, width)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        gate = torch.sigmoid(self.more(F.relu(self.less(pooled))))
        return x * gate.view(-1, x.size(1), 1, 1)


class Inverted(nn.Module):
    """Expand, depthwise, (gate,) project, and add where nothing changes size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        *,
        expand: int = 3,
        active: type[nn.Module] = nn.ReLU6,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        wide = inputs * expand
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), active())
        self.depth = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), active()
        )
        self.gate = gate or nn.Identity()
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.gate(self.depth(self.expand(x))))
        return x + y if self.same else y


def classifier(*layers: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def mobilenet_v1() -> nn.Module:
    return classifier(
        conv(3, 16, 3, 2), separable(16, 24), separable(24, 32, 2), separable(32, 32), separable(32, 48),
        width=48,
    )  # fmt: skip


def mobilenet_v2() -> nn.Module:
    return classifier(
        conv(3, 16, 3, 2), Inverted(16, 16), Inverted(16, 24, 2), Inverted(24, 24), conv(24, 48, 1), width=48
    )


class MobileNetV3(nn.Module):
    """Hard swish and hard sigmoid gates; the classifier has a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        gates = [Gate(48, 16, nn.Hardsigmoid) for _ in range(2)]
        self.blocks = nn.Sequential(
            Inverted(16, 16, gate=gates[0], active=nn.Hardswish), Inverted(16, 24, 2, gate=gates[1]),
            Inverted(24, 24, active=nn.Hardswish),
        )  # fmt: skip
        self.hidden, self.last = nn.Linear(24, 64), nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.blocks(self.stem(image)), 1).squeeze(3).squeeze(2)
        return self.last(F.hardswish(self.hidden(x)))


def efficientnet() -> nn.Module:
    gates = [Gate(48, 8), Gate(48, 8), DenseGate(72, 8)]
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
    return classifier(
        stem,
        Inverted(16, 16, gate=gates[0], active=nn.SiLU),
        Inverted(16, 24, 2, gate=gates[1], active=nn.SiLU),
        Inverted(24, 24, gate=gates[2], active=nn.SiLU),
        conv(24, 48, 1),
        width=48,
    )


class RegBlock(nn.Module):
    """A bottleneck of grouped convolution with a gate."""

    def __init__(self, inputs: int, outputs: int, stride: int, per_group: int = 8) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, 1)
        self.second = conv(outputs, outputs, 3, stride, groups=outputs // per_group)
        self.gate = Gate(outputs, inputs // 4)
        self.third = nn.Sequential(nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.third(self.gate(self.second(self.first(x))))
        return F.relu(y + (x if self.same else self.short(x)))


def regnet() -> nn.Module:
    return classifier(
        conv(3, 32, 3, 2), RegBlock(32, 32, 1), RegBlock(32, 64, 2), RegBlock(64, 64, 1), width=64
    )


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal channels out to groups as cards are dealt."""
    batch, channels, height, width = x.shape
    dealt = x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2)
    return dealt.reshape(batch, channels, height, width)


class ShuffleBlockV1(nn.Module):
    """Grouped pointwise, shuffle, depthwise, grouped pointwise; added, or concatenated to a pooled shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 2) -> None:
        super().__init__()
        made, self.stride, self.groups = outputs if stride == 1 else outputs - inputs, stride, groups
        self.first = conv(inputs, 16, 1, groups=groups)
        self.depth = nn.Sequential(nn.Conv2d(16, 16, 3, stride, 1, groups=16, bias=False), nn.BatchNorm2d(16))
        self.second = nn.Sequential(nn.Conv2d(16, made, 1, groups=groups, bias=False), nn.BatchNorm2d(made))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.depth(shuffle(self.first(x), self.groups)))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))


def shufflenet_v1() -> nn.Module:
    return classifier(
        conv(3, 16, 3, 2), ShuffleBlockV1(16, 48, 2), ShuffleBlockV1(48, 48, 1), ShuffleBlockV1(48, 48, 1),
        width=48,
    )  # fmt: skip


class ShuffleBlockV2(nn.Module):
    """Half of the channels pass, half are worked on; then both are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.work = nn.Sequential(conv(half, half, 1), separable(half, half))

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = x.chunk(2, 1)
        return shuffle(torch.cat([passed, self.work(worked)], 1), 2)


class ShuffleDown(nn.Module):
    """Both branches see everything and are strided."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left = separable(inputs, outputs // 2, 2)
        self.right = nn.Sequential(conv(inputs, outputs // 2, 1), separable(outputs // 2, outputs // 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(torch.cat([self.left(x), self.right(x)], 1), 2)


def shufflenet_v2() -> nn.Module:
    return classifier(
        conv(3, 16, 3, 2), ShuffleDown(16, 32), ShuffleBlockV2(32), ShuffleBlockV2(32), conv(32, 48, 1),
        width=48,
    )  # fmt: skip


class Ghost(nn.Module):
    """Half of the channels by a convolution, half by a cheap depthwise one of those; cut to what is wanted."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = -(-outputs // 2)
        self.primary, self.cheap, self.outputs = conv(inputs, half, 1), conv(half, half, groups=half), outputs

    def forward(self, x: Tensor) -> Tensor:
        made = self.primary(x)
        return torch.cat([made, self.cheap(made)], 1)[:, : self.outputs]


class GhostBlock(nn.Module):
    """Two ghosts and a shortcut."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.first, self.gate, self.second = Ghost(width, wide), Gate(wide, 8), Ghost(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.gate(self.first(x)))


def ghostnet() -> nn.Module:
    return classifier(conv(3, 24, 3, 2), GhostBlock(24, 47), GhostBlock(24, 48), conv(24, 48, 1), width=48)


class Xception(nn.Module):
    """Separable convolutions without activations between, with projected shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.Conv2d(16, 32, 1, bias=False),
            nn.BatchNorm2d(32), nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.short = nn.Conv2d(16, 32, 1, 2)
        self.last = classifier(separable(32, 48), width=48)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        return self.last(self.body(x) + self.short(x))


class Cbam(nn.Module):
    """Attention to channels by their means and maxima, then to places by the mean and maximum over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(width, 8, 1), nn.ReLU(), nn.Conv2d(8, width, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.shared(pooled[0]) + self.shared(pooled[1]))
        seen = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.place(seen))


class GroupNormed(nn.Module):
    """Convolutions with a channel multiplier and in groups, group norms, attention to channels and places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU())
        self.more = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, groups=16), nn.GroupNorm(2, 32), nn.SiLU())
        self.mixed = nn.Conv2d(32, 32, 3, padding=1, groups=2)
        self.attend, self.last = Cbam(32), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.more(self.stem(image))
        return self.last(self.attend(x + self.mixed(x)).mean((2, 3)))
