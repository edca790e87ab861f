"""Networks on sequences, rows and points: recurrent, convolutional over time, dense."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mobile import classifier, separable
from .pictures import conv


class Lstm(nn.Module):
    """Two layers in both directions over embedded words, and the last state's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 24)
        self.lstm = nn.LSTM(24, 16, 2, batch_first=True, bidirectional=True)
        self.last = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        made, _ = self.lstm(self.words(tokens))
        return self.last(made.mean(1))


class LstmState(nn.Module):
    """One direction over features; the state of the last step is read, and carried in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.lstm = nn.Linear(12, 24), nn.LSTM(24, 24)
        self.last = nn.Linear(24, 4)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        made, (hidden, _) = self.lstm(F.relu(self.encode(frames)).transpose(0, 1))
        return self.last(made.transpose(0, 1)), self.last(hidden.squeeze(0))


class Gru(nn.Module):
    """Two stacked units with a residual, over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(12, 24)
        self.first, self.second = nn.GRU(24, 24, batch_first=True), nn.GRU(24, 16, batch_first=True)
        self.last = nn.Linear(16, 4)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.encode(frames)
        x = x + self.first(x)[0]
        return self.last(self.second(x)[0][:, -1])


class Rnn(nn.Module):
    """A plain recurrent layer in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.RNN(12, 24, batch_first=True, bidirectional=True), nn.Linear(48, 4)

    def forward(self, frames: Tensor) -> Tensor:
        return self.last(F.relu(self.rnn(frames)[0]))


class Causal(nn.Module):
    """A dilated convolution padded on the left, by padding both sides and cutting the right one off."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.cut = 2 * dilation
        self.conv = nn.Conv1d(inputs, outputs, 3, padding=self.cut, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)[:, :, : -self.cut])


class Tcn(nn.Module):
    """Residual blocks of causal convolutions; the last step is classified."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(12, 24), (24, 24), (24, 32)]
        self.blocks = nn.ModuleList(
            nn.Sequential(Causal(i, o, 2**n), Causal(o, o, 2**n)) for n, (i, o) in enumerate(widths)
        )
        self.shorts = nn.ModuleList(nn.Conv1d(i, o, 1) if i != o else nn.Identity() for i, o in widths)
        self.last = nn.Linear(32, 4)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.transpose(1, 2)
        for block, short in zip(self.blocks, self.shorts, strict=True):
            x = F.relu(block(x) + short(x))
        return self.last(x[:, :, -1])


class WaveNet(nn.Module):
    """Gated halves, residual and skip paths; skips are summed over all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(12, 16, 1)
        self.gated = nn.ModuleList(nn.Conv1d(16, 48, 2, dilation=2**n) for n in range(3))
        self.residual = nn.ModuleList(nn.Conv1d(24, 16, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(24, 16, 1) for _ in range(3))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 16, 1), nn.ReLU(), nn.Conv1d(16, 8, 1))

    def forward(self, frames: Tensor) -> Tensor:
        x, total = self.stem(frames.transpose(1, 2)), 0
        for n, (gated, residual, skip) in enumerate(zip(self.gated, self.residual, self.skip, strict=True)):
            value, gate = gated(F.pad(x, (2**n, 0))).chunk(2, 1)
            made = torch.tanh(value) * torch.sigmoid(gate)
            x, total = x + residual(made), total + skip(made)
        return self.last(total)


def ds_cnn() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, 32, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(32), nn.ReLU())
    return classifier(stem, separable(32, 32), separable(32, 32), separable(32, 32), width=32)


class Crnn(nn.Module):
    """Columns of a convolved picture are the steps of a recurrent reader."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(1, 16), nn.MaxPool2d(2), conv(16, 24), nn.MaxPool2d((2, 1)), conv(24, 24)
        )
        self.lstm, self.last = nn.LSTM(24 * 4, 16, bidirectional=True), nn.Linear(32, 11)

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        steps = x.permute(3, 0, 1, 2).flatten(2)
        return self.last(self.lstm(steps)[0]).log_softmax(2).transpose(0, 1)


def dense_autoencoder() -> nn.Module:
    widths, layers = [64, 48, 48, 8, 48, 48], []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, 64))


class Dlrm(nn.Module):
    """Dense features and embedded categories; their pairwise products feed the top."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(30, 16) for _ in range(3))
        self.top = nn.Sequential(nn.Linear(16 + 16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(dense)
        rows = torch.stack([x, *(table(categories[:, i]) for i, table in enumerate(self.tables))], 1)
        products = torch.bmm(rows, rows.transpose(1, 2)).flatten(1) / rows.size(2)
        return self.top(torch.cat([x, products], 1))


class PointNet(nn.Module):
    """A learned rotation of the points, a maximum over points, and that beside each point's own features."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.turn = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 9))
        self.local = nn.Sequential(nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.whole = nn.Sequential(nn.Conv1d(24, 32, 1), nn.BatchNorm1d(32), nn.ReLU())
        self.last = nn.Sequential(nn.Conv1d(56, 32, 1), nn.ReLU(), nn.Conv1d(32, 4, 1))
        self.register_buffer("eye", torch.eye(3))

    def forward(self, points: Tensor) -> Tensor:
        turn = self.turn(self.look(points).max(2)[0]).view(-1, 3, 3) + self.eye
        turned = torch.bmm(points.transpose(1, 2), turn).transpose(1, 2)
        local = self.local(turned)
        whole = self.whole(local).max(2, keepdim=True)[0].expand(-1, -1, points.size(2))
        return self.last(torch.cat([local, whole], 1))


class GraphConvolution(nn.Module):
    """Nodes mixed by a given adjacency, features by weights; nodes are pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 24), nn.Linear(24, 32)
        self.norm, self.last = nn.LayerNorm(24), nn.Linear(32, 3)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(self.norm(adjacency @ self.first(features)))
        return self.last(F.relu(adjacency @ self.second(x)).mean(1))


class Highway(nn.Module):
    """Gated dense layers: a part is made new, the rest is carried."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 32)
        self.new, self.gate = (nn.ModuleList(nn.Linear(32, 32) for _ in range(2)) for _ in range(2))
        self.last = nn.Linear(32, 4)

    def forward(self, row: Tensor) -> Tensor:
        x = self.stem(row)
        for new, gate in zip(self.new, self.gate, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * F.gelu(new(x)) + (1 - share) * x
        return self.last(x)
