"""Spoken digits: a depthwise-separable CNN on log-mel features, trained here."""

# pyright: reportMissingImports=false
from __future__ import annotations

import io
import wave
import zipfile
from typing import Any

import numpy as np

from ..net import Net, classifier
from ..store import Store
from ..training import Course, trained

RATE, WINDOW, HOP, BANDS, FRAMES = 8_000, 256, 128, 32, 48
TESTED = 10  # takes of each digit and speaker that training never hears
COPIES, NOISE, SHIFT = (
    12,
    0.004,
    800,
)  # of the tested clips: most noise against full scale, most samples of shift
LEARNT = 2  # versions of each clip to train on, the first as it is
CALIBRATION = 256
SEED = 3


def spoken(store: Store) -> Net:
    """Split by take: both speakers, other recordings."""
    found = store.arrays("fsdd-logmel-2", lambda: _features(store))
    path = trained(
        store,
        "spoken-dscnn",
        ds_cnn,
        found["x"],
        found["y"],
        Course(14, batch=32, noise=0.1),
        input_name="mel",
    )
    return classifier(
        "spoken-digits",
        path,
        {"mel": found["x"][:CALIBRATION]},
        {"mel": found["test"]},
        found["labels"],
        note=f"{len(found['test']) // COPIES} clips never trained on, {COPIES - 1} noisy copies of each besides",
    )


def ds_cnn(width: int = 32, classes: int = 10) -> Any:
    """A stem and three separable blocks over [N, 1, frames, bands]."""
    from torch import nn

    layers: list[Any] = [nn.Conv2d(1, width, (8, 4), stride=2, padding=(3, 1), bias=False)]
    layers += [nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def _features(store: Store) -> dict[str, np.ndarray]:
    sets: dict[str, list[Any]] = {"x": [], "y": [], "test": [], "labels": []}
    rng = np.random.default_rng(SEED)
    clips = _clips(store)
    takes = sorted({take for _, take, _ in clips})
    tested = [(digit, samples) for digit, take, samples in clips if take in takes[:TESTED]]
    for digit, take, samples in clips:
        if take not in takes[:TESTED]:
            sets["x"] += [log_mel(_varied(samples, rng) if copy else samples) for copy in range(LEARNT)]
            sets["y"] += [digit] * LEARNT
    for copy in range(COPIES):
        for digit, samples in tested:
            sets["test"].append(log_mel(_varied(samples, rng) if copy else samples))
            sets["labels"].append(digit)
    x, test = np.stack(sets["x"]), np.stack(sets["test"])
    mean, deviation = x.mean(), x.std()
    x, test = (((a - mean) / deviation)[:, None].astype(np.float32) for a in (x, test))
    y, labels = (np.array(sets[k], np.int64) for k in ("y", "labels"))
    order = rng.permutation(len(x))
    return {"x": x[order], "y": y[order], "test": test, "labels": labels}


def _clips(store: Store) -> list[tuple[int, int, np.ndarray]]:
    """Return (digit, take, samples in -1..1) of every clip, by name."""
    found = []
    with zipfile.ZipFile(store.shared("fsdd", "fsdd_train_jackson_theo.zip")) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".wav")):
            digit, _, take = name.rpartition("/")[2].removesuffix(".wav").split("_")
            with wave.open(io.BytesIO(archive.read(name))) as clip:
                samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2") / 32768
            found.append((int(digit), int(take), samples))
    return found


def _varied(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shifted = np.concatenate([np.zeros(rng.integers(0, SHIFT)), samples])
    return shifted * rng.uniform(0.5, 1.2) + rng.normal(0, NOISE * rng.uniform(0, 1), len(shifted))


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return [48, 32] log energies of mel bands, the clip cut or filled with silence."""
    wanted = HOP * (FRAMES - 1) + WINDOW
    samples = np.concatenate([samples[:wanted], np.zeros(max(0, wanted - len(samples)))])
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    return np.log(power @ _bands().T + 1e-4)


def _bands() -> np.ndarray:
    """Return triangular filters [bands, bins], centres even on the mel scale (O'Shaughnessy 1987)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    centres = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, mid, high = centres[:-2, None], centres[1:-1, None], centres[2:, None]
    return np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))
