"""Networks that answer with maps, boxes or pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mobile import separable
from .pictures import conv


def double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))


class UNet(nn.Module):
    """Encoder and decoder joined by concatenation, up by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = double(3, 16), double(16, 24), double(24, 32)
        self.up2, self.join2 = nn.ConvTranspose2d(32, 24, 2, 2), double(48, 24)
        self.up1, self.join1 = nn.ConvTranspose2d(24, 16, 2, 2), double(32, 16)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        a = self.down1(image)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.up2(self.bottom(F.max_pool2d(b, 2)))
        x = self.up1(self.join2(torch.cat([b, x], 1)))
        return self.last(self.join1(torch.cat([a, x], 1)))


class DeepLab(nn.Module):
    """Dilated branches and a pooled one, concatenated, joined to an early map, resized to the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 16, 3, 2), conv(16, 32, 3, 2)
        self.branches = nn.ModuleList(nn.Conv2d(32, 16, 3, padding=rate, dilation=rate) for rate in (1, 2, 3))
        self.pooled, self.join = nn.Conv2d(32, 16, 1), conv(64, 24, 1)
        self.low, self.last = conv(16, 8, 1), nn.Sequential(conv(32, 24), nn.Conv2d(24, 4, 1))

    def forward(self, image: Tensor) -> Tensor:
        low = self.stem(image)
        x = self.body(low)
        pooled = F.interpolate(F.relu(self.pooled(x.mean((2, 3), keepdim=True))), size=(8, 8))
        x = self.join(torch.cat([*(F.relu(branch(x)) for branch in self.branches), pooled], 1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = self.last(torch.cat([x, self.low(low)], 1))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Ssd(nn.Module):
    """Heads on two maps; scores and boxes are permuted, reshaped and concatenated, boxes decoded."""

    classes, anchors = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = conv(3, 16, 3, 2), separable(16, 32, 2), separable(32, 48, 2)
        self.scores = nn.ModuleList(nn.Conv2d(w, self.anchors * self.classes, 3, 1, 1) for w in (32, 48))
        self.boxes = nn.ModuleList(nn.Conv2d(w, self.anchors * 4, 3, 1, 1) for w in (32, 48))
        self.register_buffer("priors", torch.rand(1, (64 + 16) * self.anchors, 4))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        a = self.first(self.stem(image))
        maps = [a, self.second(a)]
        scores = [
            head(x).permute(0, 2, 3, 1).reshape(x.size(0), -1, self.classes)
            for head, x in zip(self.scores, maps, strict=True)
        ]
        boxes = [
            head(x).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4)
            for head, x in zip(self.boxes, maps, strict=True)
        ]
        found, prior = torch.cat(boxes, 1), self.priors
        centre = found[..., :2] * 0.1 * prior[..., 2:] + prior[..., :2]
        size = torch.exp(found[..., 2:] * 0.2) * prior[..., 2:]
        return torch.cat(scores, 1).softmax(2), torch.cat([centre - size / 2, centre + size / 2], 2)


def silu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.SiLU())


class C2f(nn.Module):
    """Halves of a map; the second goes through bottlenecks, and everything made is concatenated."""

    def __init__(self, inputs: int, outputs: int, repeats: int = 2, *, add: bool = True) -> None:
        super().__init__()
        half, self.add = outputs // 2, add
        self.split, self.join = silu(inputs, outputs, 1), silu((2 + repeats) * half, outputs, 1)
        self.parts = nn.ModuleList(nn.Sequential(silu(half, half), silu(half, half)) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        made = list(self.split(x).split(self.split[0].out_channels // 2, 1))
        for part in self.parts:
            made.append(part(made[-1]) + made[-1] if self.add else part(made[-1]))
        return self.join(torch.cat(made, 1))


class Yolo(nn.Module):
    """C2f backbone, pooled pyramid, a path up and down, heads whose boxes are expectations over bins."""

    classes, bins = 3, 8

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.p3 = silu(3, 16, 3, 2), nn.Sequential(silu(16, 32, 3, 2), C2f(32, 32))
        self.p4 = nn.Sequential(silu(32, 48, 3, 2), C2f(48, 48, 1))
        self.pool, self.pooled = silu(48, 24, 1), silu(96, 48, 1)
        self.up, self.down = C2f(80, 32, 1, add=False), silu(32, 32, 3, 2)
        self.out = C2f(80, 48, 1, add=False)
        outputs = 4 * self.bins + self.classes
        self.heads = nn.ModuleList(nn.Sequential(silu(w, 32), nn.Conv2d(32, outputs, 1)) for w in (32, 48))
        self.register_buffer("steps", torch.arange(self.bins, dtype=torch.float32).view(1, self.bins, 1, 1))
        sizes = (8, 4)
        points = [torch.stack(torch.meshgrid(torch.arange(s), torch.arange(s), indexing="xy")) for s in sizes]
        self.register_buffer("grid", torch.cat([p.reshape(2, -1) for p in points], 1).float() + 0.5)

    def forward(self, image: Tensor) -> Tensor:
        p3 = self.p3(self.stem(image))
        p4 = self.p4(p3)
        pools = [self.pool(p4)]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        p4 = self.pooled(torch.cat(pools, 1))
        p3 = self.up(torch.cat([F.interpolate(p4, scale_factor=2.0), p3], 1))
        p4 = self.out(torch.cat([self.down(p3), p4], 1))
        flat = [
            head(x).view(x.size(0), -1, x.size(2) * x.size(3))
            for head, x in zip(self.heads, (p3, p4), strict=True)
        ]
        boxes, scores = torch.cat(flat, 2).split([4 * self.bins, self.classes], 1)
        bins = boxes.view(boxes.size(0), 4, self.bins, -1).transpose(1, 2).softmax(1)
        near, far = (bins * self.steps).sum(1).chunk(2, 1)
        return torch.cat([self.grid - near, self.grid + far, scores.sigmoid()], 1)


class RetinaNet(nn.Module):
    """A feature pyramid whose levels share one head; anchors are a reshape of its channels."""

    classes, anchors = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.stages = nn.ModuleList([conv(16, 24, 3, 2), conv(24, 32, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(w, 24, 1) for w in (16, 24, 32))
        self.tower = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.GroupNorm(4, 24), nn.ReLU())
        self.scores = nn.Conv2d(24, self.anchors * self.classes, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        x, outputs = None, []
        for lateral, level in zip(reversed(self.lateral), reversed(maps), strict=True):
            x = lateral(level) if x is None else lateral(level) + F.interpolate(x, scale_factor=2.0)
            found = self.scores(self.tower(x))
            batch, _, height, width = found.shape
            found = found.view(batch, self.anchors, self.classes, height, width).permute(0, 3, 4, 1, 2)
            outputs.append(found.reshape(batch, -1, self.classes))
        return torch.cat(outputs, 1)


class SuperResolution(nn.Module):
    """Residual blocks at the small size, then a pixel shuffle: channels become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.first, self.second = nn.Conv2d(16, 24, 3, 1, 1), nn.Conv2d(24, 16, 3, 1, 1)
        self.act, self.up, self.last = nn.PReLU(16), nn.Conv2d(16, 64, 3, 1, 1), nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.stem(image))
        x = x + self.second(F.leaky_relu(self.first(x), 0.1))
        x = self.last(F.pixel_shuffle(self.up(x), 2))
        return x + F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)


class Autoencoder(nn.Module):
    """Strided convolutions to a code, and a dense layer, a view and transposed convolutions back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * 16, 16),
        )  # fmt: skip
        self.back = nn.Linear(16, 32 * 16)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=2), nn.ELU(), nn.Conv2d(8, 1, 3, 1, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(F.relu(self.back(self.encoder(image))).view(-1, 32, 4, 4))


class StyleTransfer(nn.Module):
    """Instance norms, reflected borders, residual blocks, resize and convolve."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(self._layer(3, 16), self._layer(16, 32, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(self._layer(32, 32), nn.Conv2d(32, 32, 3, 1, 1), nn.InstanceNorm2d(32, affine=True))
            for _ in range(2)
        )
        self.up, self.last = self._layer(32, 16), nn.Conv2d(16, 3, 3, 1, 1)

    @staticmethod
    def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(inputs, outputs, 3, stride),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image)
        for block in self.blocks:
            x = x + block(x)
        return torch.tanh(self.last(self.up(F.interpolate(x, scale_factor=2.0))))
