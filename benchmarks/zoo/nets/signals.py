"""Networks for short signals, trained here: MNIST-1D, and three sets of the UCR/UEA archive."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import numpy as np

from ..net import Net, classifier
from ..store import Store
from ..training import Course, trained
from ..vary import noisy

CALIBRATION = 256
MNIST1D_COPIES, MNIST1D_NOISE = 10, 0.05
UCR = ("timeseries", "aeon", "datasets", "data")
UCR_NOISE = 0.1  # of a standardised signal


def mlp(inputs: int, classes: int, width: int = 100) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def cnn(channels: int, classes: int, width: int = 32) -> Any:
    """Three strided convolutions with batch norm over [N, channels, time]."""
    from torch import nn

    layers: list[Any] = []
    for inputs in (channels, width, width):
        layers += [
            nn.Conv1d(inputs, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))


def recurrent(kind: str, channels: int, classes: int, width: int = 48) -> Any:
    """A GRU or LSTM over [N, channels, time], a dense layer on its last state."""
    import torch
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = getattr(nn, kind)(channels, width, batch_first=True)
            self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, classes)

        def forward(self, x: Any) -> Any:
            states, _ = self.cells(x.transpose(1, 2))
            return self.head(torch.relu(self.hidden(states[:, -1])))

    return Recurrent()


def mnist1d_mlp(store: Store) -> Net:
    return _mnist1d(store, "mnist1d-mlp", lambda: mlp(40, 10), Course(40, noise=0.05))


def mnist1d_cnn(store: Store) -> Net:
    return _mnist1d(store, "mnist1d-cnn", lambda: cnn(1, 10), Course(40, noise=0.05))


def mnist1d_gru(store: Store) -> Net:
    return _mnist1d(store, "mnist1d-gru", lambda: recurrent("GRU", 1, 10), Course(40, rate=5e-3))


def gunpoint(store: Store) -> Net:
    return _ucr(store, "GunPoint", lambda: cnn(1, 2), Course(150, batch=16, noise=0.1), copies=20)


def italy_power(store: Store) -> Net:
    return _ucr(
        store, "ItalyPowerDemand", lambda: recurrent("LSTM", 1, 2), Course(120, batch=16, noise=0.1), copies=5
    )


def basic_motions(store: Store) -> Net:
    return _ucr(store, "BasicMotions", lambda: cnn(6, 4), Course(80, batch=8, noise=0.1), copies=50)


def _mnist1d(store: Store, name: str, build: Any, course: Course) -> Net:
    with np.load(store.shared("mnist1d", "mnist1d.npz")) as found:
        x, y, test, labels = (found[k] for k in ("x", "y", "x_test", "y_test"))
    x, test = (np.ascontiguousarray(a[:, None], np.float32) for a in (x, test))
    path = trained(store, name, build, x, y.astype(np.int64), course)
    rows = noisy(test, copies=MNIST1D_COPIES, scale=MNIST1D_NOISE)
    note = f"{len(test)} signals, {MNIST1D_COPIES - 1} noisy copies of each besides"
    return classifier(
        name,
        path,
        {"x": x[:CALIBRATION]},
        {"x": rows},
        np.tile(labels, MNIST1D_COPIES),
        note=note,
    )


def _ucr(store: Store, name: str, build: Any, course: Course, *, copies: int) -> Net:
    parts = {}
    for part in ("TRAIN", "TEST"):
        parts[part] = read_ts(store.shared(*UCR, name, f"{name}_{part}.ts").read_text())
    (x, words), (test, test_words) = parts["TRAIN"], parts["TEST"]
    mean, deviation = x.mean(axis=(0, 2), keepdims=True), x.std(axis=(0, 2), keepdims=True)
    x, test = (np.ascontiguousarray((a - mean) / deviation, np.float32) for a in (x, test))
    classes = sorted(set(words))
    y, labels = (np.array([classes.index(w) for w in some], np.int64) for some in (words, test_words))
    path = trained(store, name.lower(), build, x, y, course)
    rows = noisy(test, copies=copies, scale=UCR_NOISE)
    note = f"{len(test)} series, {copies - 1} noisy copies of each besides"
    return classifier(
        name.lower(),
        path,
        {"x": x[:CALIBRATION]},
        {"x": rows},
        np.tile(labels, copies),
        note=note,
    )


def read_ts(text: str) -> tuple[np.ndarray, list[str]]:
    """Return series [rows, dimensions, time] and their labels from a `.ts` file of equal lengths."""
    rows, labels = [], []
    for line in text.splitlines():
        if line and line[0] not in "@#":
            *dimensions, label = line.split(":")
            rows.append([[float(v) for v in dimension.split(",")] for dimension in dimensions])
            labels.append(label.strip())
    return np.array(rows, np.float64), labels
