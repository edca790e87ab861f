"""Classifiers of pictures whose joints are sums, concatenations and flattened maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int = 1, *, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the map keeps its size at stride 1."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (size[0] // 2, size[1] // 2)
    layer = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class AlexNet(nn.Module):
    """Biased convolutions, then three dense layers on a flattened map of 3 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(16, 24, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(24, 32, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(32 * 9, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(image), 1))


class Vgg(nn.Module):
    """Stacks of 3 x 3 convolutions with batch norm, flattened through `view`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 16), conv(16, 16), nn.MaxPool2d(2), conv(16, 32), conv(32, 32), nn.MaxPool2d(2),
            conv(32, 48), nn.AdaptiveAvgPool2d(2),
        )  # fmt: skip
        self.hidden, self.last = nn.Linear(48 * 4, 64), nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        return self.last(F.relu(self.hidden(x.view(x.size(0), -1))))


class PaddedBlock(nn.Module):
    """A basic block whose shortcut skips pixels and pads channels, as ResNets for CIFAR do."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride), nn.Conv2d(outputs, outputs, 3, 1, 1))
        self.norm = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        short = x
        if self.more:
            short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(self.norm(self.body(x)) + short)


class ResNet20(nn.Module):
    """Three stages of padded blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.blocks = nn.Sequential(
            PaddedBlock(16, 16, 1), PaddedBlock(16, 32, 2), PaddedBlock(32, 32, 1), PaddedBlock(32, 48, 2)
        )
        self.last = nn.Linear(48, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.stem(image))
        return self.last(F.avg_pool2d(x, x.size(3)).view(x.size(0), -1))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (of `groups`), 1 x 1, and a shortcut with a projection where widths differ."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, width, 1),
            conv(width, width, 3, stride, groups=groups),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


class ResNet50(nn.Module):
    """Bottlenecks; with `groups`, a ResNeXt."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(
            Bottleneck(16, 16, 32, 1, groups),
            Bottleneck(32, 16, 32, 1, groups),
            Bottleneck(32, 32, 64, 2, groups),
            Bottleneck(64, 32, 64, 1, groups),
        )
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(torch.flatten(self.pool(self.blocks(self.stem(image))), 1))


class DenseLayer(nn.Module):
    """Norm, ReLU, 1 x 1, norm, ReLU, 3 x 3 on everything made so far."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = (
            nn.BatchNorm2d(2 * growth),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, made: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(made, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet(nn.Module):
    """Two dense blocks with a transition; norms come before the convolutions, so each reader has its own."""

    def __init__(self, growth: int = 8) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.first = nn.ModuleList(DenseLayer(16 + i * growth, growth) for i in range(3))
        self.shrink = nn.Sequential(nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 24, 1), nn.AvgPool2d(2))
        self.second = nn.ModuleList(DenseLayer(24 + i * growth, growth) for i in range(3))
        self.norm, self.last = nn.BatchNorm2d(48), nn.Linear(48, 10)

    @staticmethod
    def _grow(layers: nn.ModuleList, x: Tensor) -> Tensor:
        made = [x]
        for layer in layers:
            made.append(layer(made))
        return torch.cat(made, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self._grow(self.second, self.shrink(self._grow(self.first, self.stem(image))))
        return self.last(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


class Mixed(nn.Module):
    """Four branches, one of them factorized, one pooled, concatenated."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = conv(inputs, 16, 1)
        self.three = nn.Sequential(conv(inputs, 16, 1), conv(16, 24))
        self.seven = nn.Sequential(conv(inputs, 8, 1), conv(8, 16, (1, 7)), conv(16, 16, (7, 1)))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(inputs, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.seven(x), self.pool(x)], 1)


class Inception(nn.Module):
    """Mixed blocks with a reduction of strided branches between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = conv(3, 16, 3, 2), Mixed(16), Mixed(96)
        self.reduce = conv(64, 32, 3, 2)
        self.last = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(self.stem(image))
        x = self.second(torch.cat([self.reduce(x), F.max_pool2d(x, 3, 2, 1)], 1))
        return self.last(x.mean((2, 3)))


class Fire(nn.Module):
    """Squeeze to few channels, expand by two branches."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class SqueezeNet(nn.Module):
    """Fire modules; the classifier is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(16, 8, 16), Fire(32, 8, 24), Fire(48, 16, 32), nn.Conv2d(64, 10, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        return torch.flatten(self.body(image), 1)


class RepVgg(nn.Module):
    """Each layer sums a 3 x 3, a 1 x 1 and an identity branch, each with its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.three = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(2))
        self.one = nn.ModuleList(nn.Conv2d(16, 16, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(6))
        self.wide, self.last = conv(16, 32, 3, 2), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for i in range(2):
            a, b, c = self.norms[3 * i : 3 * i + 3]
            x = F.relu(a(self.three[i](x)) + b(self.one[i](x)) + c(x))
        return self.last(self.wide(x).mean([2, 3]))
