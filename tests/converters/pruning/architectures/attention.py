"""Transformers of pictures: tokens, windows, mixers, and the convolutional networks that took after them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Heads from one fused projection, by a reshape to (3, heads, size), with an optional bias on the scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            self.qkv(x).reshape(batch, tokens, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = q @ k.transpose(-2, -1) * self.size**-0.5
        if bias is not None:
            scores = scores + bias
        return self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Vit(nn.Module):
    """Patches, a class token, learned positions, pre-norm blocks."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.attention = nn.ModuleList(Attention(width, heads) for _ in range(depth))
        self.mlp = nn.ModuleList(mlp(width, 2 * width) for _ in range(depth))
        self.last = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1) + self.position
        for i, (attention, hidden) in enumerate(zip(self.attention, self.mlp, strict=True)):
            x = x + attention(self.norms[2 * i](x))
            x = x + hidden(self.norms[2 * i + 1](x))
        return self.last(self.norms[-1](x)[:, 0])


class WindowBlock(nn.Module):
    """Attention inside windows of a map that may be rolled, with relative position bias and its mask."""

    def __init__(self, width: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = Attention(width, heads), mlp(width, 2 * width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :] + window - 1).permute(1, 2, 0)
        self.register_buffer("index", (apart[..., 0] * (2 * window - 1) + apart[..., 1]).flatten())
        region = torch.zeros(size, size)
        for n, cut in enumerate((size - window, size - shift)):
            region[cut:] += n + 1
            region[:, cut:] += 3 * (n + 1)
        parts = self._windows(region[None, :, :, None]).squeeze(2)
        mask = (parts[:, None] != parts[:, :, None]).float() * -100
        self.register_buffer("mask", mask[:, None])

    def _windows(self, x: Tensor) -> Tensor:
        n, w = self.size // self.window, self.window
        x = x.view(-1, n, w, n, w, x.size(3)).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, w * w, x.size(5))

    def forward(self, x: Tensor) -> Tensor:
        n, w, width = self.size // self.window, self.window, x.size(3)
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        bias = self.table[self.index].view(w * w, w * w, -1).permute(2, 0, 1).unsqueeze(0)
        parts = self._windows(y)
        if self.shift:
            bias = (bias + self.mask).repeat(x.size(0), 1, 1, 1)
        y = self.attention(parts, bias).view(-1, n, n, w, w, width).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(-1, self.size, self.size, width)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Plain and shifted windows, and patches merged by concatenating every other pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm0 = nn.Conv2d(3, 24, 2, 2), nn.LayerNorm(24)
        self.first = nn.Sequential(WindowBlock(24, 3, 8, 4, 0), WindowBlock(24, 3, 8, 4, 2))
        self.norm, self.merge = nn.LayerNorm(96), nn.Linear(96, 48, bias=False)
        self.second = WindowBlock(48, 3, 4, 4, 0)
        self.last_norm, self.last = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(self.norm0(self.patch(image).permute(0, 2, 3, 1)))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.second(self.merge(self.norm(torch.cat(parts, -1))))
        return self.last(self.last_norm(x).mean((1, 2)))


class ConvNextBlock(nn.Module):
    """Depthwise 7 x 7, then norm and two dense layers with channels last, scaled per channel and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.mlp, self.scale = mlp(width, 3 * width), nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.mlp(y)).permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map that keeps its layout, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + 1e-5)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 4, 4), ChannelNorm(24), ConvNextBlock(24), ChannelNorm(24), nn.Conv2d(24, 32, 2, 2),
        ConvNextBlock(32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 10),
    )  # fmt: skip


class Mixer(nn.Module):
    """Dense layers across tokens, through a transpose, and across channels."""

    def __init__(self, width: int = 32, tokens: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.tokens, self.channels = mlp(tokens, 24), mlp(width, 64)
        self.last = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return self.last(self.norm3(x).mean(1))


class PoolFormer(nn.Module):
    """Average pooling in place of attention, group norms of one group."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(2))
        self.first, self.second = nn.Conv2d(width, 48, 1), nn.Conv2d(48, width, 1)
        self.scale = nn.Parameter(torch.randn(width, 1, 1))
        self.last = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image)
        y = self.norms[0](x)
        x = x + self.scale * (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y)
        x = x + self.second(F.gelu(self.first(self.norms[1](x))))
        return self.last(x.mean((-2, -1)))


class MobileVit(nn.Module):
    """A convolved map is unfolded to patches for a transformer, folded back and concatenated."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.into, self.out = nn.Conv2d(16, width, 1), nn.Conv2d(width, 16, 1)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp, self.join = Attention(width, 4), mlp(width, 48), nn.Conv2d(32, 32, 3, 1, 1)
        self.last = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        local = self.stem(image)
        x = self.into(local)
        batch, width, height, _ = x.shape
        n = height // 2
        x = x.reshape(batch * width * n, 2, n, 2).transpose(1, 2).reshape(batch, width, n * n, 4)
        x = x.transpose(1, 3).reshape(batch * 4, n * n, width)
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        x = x.view(batch, 4, n * n, width).transpose(1, 3)
        x = x.reshape(batch * width * n, n, 2, 2).transpose(1, 2).reshape(batch, width, height, height)
        return self.last(F.silu(self.join(torch.cat([local, self.out(x)], 1))).mean((2, 3)))
