"""Transformers of text and speech."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import mlp


class Split(nn.Module):
    """Attention from separate projections; `keys` may come from elsewhere."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.heads, self.size).transpose(1, 2)

    def forward(self, x: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = self._heads(self.query(x)), self._heads(self.key(keys)), self._heads(self.value(keys))
        scores = torch.matmul(q, k.transpose(-1, -2)) / self.size**0.5
        shares = (scores if bias is None else scores + bias).softmax(-1)
        return self.out(torch.matmul(shares, v).permute(0, 2, 1, 3).flatten(2))


class Bert(nn.Module):
    """Summed embeddings, post-norm blocks, a masked-word head tied to the words, and a pooled one."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.words, self.positions, self.kinds = (nn.Embedding(n, width) for n in (50, 12, 2))
        self.norm0 = nn.LayerNorm(width)
        self.attention = nn.ModuleList(Split(width, heads) for _ in range(depth))
        self.norm1, self.norm2 = (nn.ModuleList(nn.LayerNorm(width) for _ in range(depth)) for _ in range(2))
        self.mlp = nn.ModuleList(mlp(width, 2 * width) for _ in range(depth))
        self.pool, self.last = nn.Linear(width, width), nn.Linear(width, 2)
        self.shape, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 50)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor, mask: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(tokens.size(1))
        x = self.norm0(self.words(tokens) + self.positions(places) + self.kinds(kinds))
        bias = (1.0 - mask[:, None, None, :].float()) * -10000.0
        for attention, first, hidden, second in zip(
            self.attention, self.norm1, self.mlp, self.norm2, strict=True
        ):
            x = first(x + attention(x, x, bias))
            x = second(x + hidden(x))
        return self.head(self.norm(F.gelu(self.shape(x)))), self.last(torch.tanh(self.pool(x[:, 0])))


class Gpt(nn.Module):
    """Pre-norm blocks under a causal mask, from a fused projection that is split, with the head tied to the words."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.words, self.positions = nn.Embedding(50, width), nn.Embedding(16, width)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.mlp = nn.ModuleList(mlp(width, 2 * width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.register_buffer("mask", torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16))

    def _attend(self, x: Tensor, i: int) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, self.width // self.heads).transpose(1, 2)
            for part in self.qkv[i](x).split(self.width, 2)
        )
        scores = q @ k.transpose(-2, -1) / (self.width // self.heads) ** 0.5
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        made = (scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(batch, length, self.width)
        return self.out[i](made)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions.weight[None, : tokens.size(1)]
        for i, hidden in enumerate(self.mlp):
            x = x + self._attend(self.norms[2 * i](x), i)
            x = x + hidden(self.norms[2 * i + 1](x))
        return F.linear(self.norms[-1](x), self.words.weight)


class Rms(nn.Module):
    """Root mean square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Llama(nn.Module):
    """Rotary positions, keys and values shared by two heads each, gated hidden layers, RMS norms."""

    heads, groups, size = 4, 2, 8

    def __init__(self, width: int = 32, hidden: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(50, width)
        self.q = nn.ModuleList(nn.Linear(width, self.heads * self.size, bias=False) for _ in range(depth))
        self.k, self.v = (
            nn.ModuleList(nn.Linear(width, self.groups * self.size, bias=False) for _ in range(depth))
            for _ in range(2)
        )
        self.out = nn.ModuleList(nn.Linear(self.heads * self.size, width, bias=False) for _ in range(depth))
        self.gate, self.up = (
            nn.ModuleList(nn.Linear(width, hidden, bias=False) for _ in range(depth)) for _ in range(2)
        )
        self.down = nn.ModuleList(nn.Linear(hidden, width, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(Rms(width) for _ in range(2 * depth + 1))
        self.last = nn.Linear(width, 50, bias=False)
        angle = torch.arange(12)[:, None] * 100.0 ** (-torch.arange(0, self.size, 2) / self.size)
        self.register_buffer("cos", torch.cat([angle, angle], -1).cos())
        self.register_buffer("sin", torch.cat([angle, angle], -1).sin())
        self.register_buffer("mask", torch.full((12, 12), -1e9).triu(1))

    def _rotate(self, x: Tensor) -> Tensor:
        length, half = x.size(2), self.size // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos[:length] + turned * self.sin[:length]

    def _attend(self, x: Tensor, i: int) -> Tensor:
        batch, length, _ = x.shape
        q = self._rotate(self.q[i](x).view(batch, length, self.heads, self.size).transpose(1, 2))
        k = self._rotate(self.k[i](x).view(batch, length, self.groups, self.size).transpose(1, 2))
        v = self.v[i](x).view(batch, length, self.groups, self.size).transpose(1, 2)
        k, v = (
            part[:, :, None]
            .expand(batch, self.groups, 2, length, self.size)
            .reshape(batch, self.heads, length, -1)
            for part in (k, v)
        )
        scores = q @ k.transpose(2, 3) / self.size**0.5 + self.mask[:length, :length]
        return self.out[i]((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        for i, down in enumerate(self.down):
            x = x + self._attend(self.norms[2 * i](x), i)
            y = self.norms[2 * i + 1](x)
            x = x + down(F.silu(self.gate[i](y)) * self.up[i](y))
        return self.last(self.norms[-1](x))


class Translator(nn.Module):
    """An encoder and a decoder that reads it; words are shared by both."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(40, width)
        self.position = nn.Parameter(torch.randn(1, 10, width))
        self.encode, self.own, self.cross = (Split(width, heads) for _ in range(3))
        self.mlp1, self.mlp2 = mlp(width, 48), mlp(width, 48)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.bias = nn.Parameter(torch.randn(1, heads, 10, 10))
        self.register_buffer("mask", torch.full((10, 10), -1e9).triu(1))
        self.last = nn.Linear(width, 40)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        x = self.words(source) + self.position
        x = self.norms[0](x + self.encode(x, x, self.bias))
        x = self.norms[1](x + self.mlp1(x))
        y = self.words(target) + self.position
        y = self.norms[2](y + self.own(y, y, self.mask))
        y = self.norms[3](y + self.cross(y, x))
        return self.last(self.norms[4](y + self.mlp2(y)))


class TorchEncoder(nn.Module):
    """The encoder layer that torch itself brings, over frames."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.into = nn.Linear(12, width)
        layer = nn.TransformerEncoderLayer(width, 4, 48, batch_first=True, norm_first=False)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(width, 4)

    def forward(self, frames: Tensor) -> Tensor:
        return self.last(self.encoder(self.into(frames)).mean(1))


class Conformer(nn.Module):
    """Half-step hidden layers, attention, and a convolution with a gated linear unit and batch norm."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, 2, 1)
        self.into = nn.Linear(8 * 6, width)
        self.half1, self.half2 = mlp(width, 48), mlp(width, 48)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.attention = Split(width, 3)
        self.gated, self.depth = (
            nn.Conv1d(width, 2 * width, 1),
            nn.Conv1d(width, width, 5, 1, 2, groups=width),
        )
        self.norm, self.back, self.last = (
            nn.BatchNorm1d(width), nn.Conv1d(width, width, 1), nn.Linear(width, 7)
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        x = F.relu(self.down(frames.unsqueeze(1)))
        x = self.into(x.transpose(1, 2).flatten(2))
        x = x + 0.5 * self.half1(self.norms[0](x))
        y = self.norms[1](x)
        x = x + self.attention(y, y)
        y = F.glu(self.gated(self.norms[2](x).transpose(1, 2)), 1)
        x = x + self.back(F.silu(self.norm(self.depth(y)))).transpose(1, 2)
        x = x + 0.5 * self.half2(self.norms[3](x))
        return self.last(self.norms[4](x)).log_softmax(-1)


class Detr(nn.Module):
    """A convolved map is the memory that learned queries read; each answers with a class and a box."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1)
        )
        self.queries = nn.Parameter(torch.randn(5, width))
        self.rows, self.columns = nn.Parameter(torch.randn(4, 12)), nn.Parameter(torch.randn(4, 12))
        self.read, self.mlp = nn.MultiheadAttention(width, 4, batch_first=True), mlp(width, 48)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.classes, self.box = nn.Linear(width, 4), nn.Linear(width, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(image)
        at = torch.cat([self.columns[None].repeat(4, 1, 1), self.rows[:, None].repeat(1, 4, 1)], -1)
        memory = x.flatten(2).permute(0, 2, 1) + at.flatten(0, 1)
        queries = self.queries.unsqueeze(0).repeat(x.size(0), 1, 1)
        y = self.norm1(queries + self.read(queries, memory, memory, need_weights=False)[0])
        y = self.norm2(y + self.mlp(y))
        return self.classes(y), self.box(y).sigmoid()


class Einsums(nn.Module):
    """Attention whose weights keep their heads apart, all in einsums, then a mixture of two gated experts."""

    def __init__(self, width: int = 32, heads: int = 4, size: int = 8) -> None:
        super().__init__()
        self.into = nn.Linear(12, width)
        self.query, self.key, self.value = (nn.Parameter(torch.randn(width, heads, size)) for _ in range(3))
        self.out = nn.Parameter(torch.randn(heads, size, width))
        self.up, self.down = nn.Parameter(torch.randn(2, width, 48)), nn.Parameter(torch.randn(2, 48, width))
        self.gate, self.last = nn.Linear(width, 2), nn.Linear(width, 5)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.into(frames)
        q, k, v = (torch.einsum("btm,mhd->bthd", x, w) for w in (self.query, self.key, self.value))
        shares = (torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5).softmax(-1)
        x = x + torch.einsum("bqhd,hdm->bqm", torch.einsum("bhqk,bkhd->bqhd", shares, v), self.out)
        hidden = F.relu(torch.einsum("btm,emf->btef", x, self.up))
        made = torch.einsum("btef,efm->btem", hidden, self.down)
        return self.last(x + torch.einsum("btem,bte->btm", made, self.gate(x).softmax(-1)))
