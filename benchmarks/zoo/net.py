"""What a net of the zoo is: a float ONNX file, rows to calibrate with, and a score of its own task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

BATCH = 32  # rows in one run where the model leaves that free

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds], list[np.ndarray]]  # a model: inputs by name -> outputs in graph order
# plays the task with a model: the credit of each answer in 0..1, or one number for the whole; the mean is the score
Play = Callable[[Run], np.ndarray]


@dataclass(frozen=True)
class Net:
    """One network with real data.

    `calibration` holds one row per feed, `batch` is how many rows a run may take, `play` runs the whole evaluation,
    `timed` is what latency is taken with. `rows` counts the answers that the score is made of: one of them is
    100 / `rows` points. `evaluation` is a digest of what `play` runs on, so that scores can be remembered.
    """

    name: str
    path: Path
    calibration: Sequence[Feeds]
    play: Play
    timed: Feeds
    metric: str
    rows: int
    evaluation: str
    batch: int = 1
    note: str = ""

    def stacked(self) -> list[Feeds]:
        """Return the calibration rows in runs of `batch`."""
        if self.batch == 1:
            return list(self.calibration)
        groups = [self.calibration[s : s + self.batch] for s in range(0, len(self.calibration), self.batch)]
        return [{n: np.concatenate([feed[n] for feed in group]) for n in group[0]} for group in groups]


def digest(*parts: np.ndarray | str | bytes) -> str:
    """Return a short SHA-256 over arrays (with dtype and shape) and texts."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).tobytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:16]


def runner(path: Path) -> Run:
    """Load an artifact in ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feeds: [np.asarray(a) for a in session.run(None, feeds)]


def points(credits: np.ndarray) -> float:
    """Return a score from 0 to 100."""
    return 100.0 * float(credits.mean())


def batches(arrays: Mapping[str, np.ndarray], size: int) -> list[Feeds]:
    """Cut rows into feeds of `size`; the last one may be shorter."""
    rows = len(next(iter(arrays.values())))
    return [{n: a[s : s + size] for n, a in arrays.items()} for s in range(0, rows, size)]


def accuracy(arrays: Mapping[str, np.ndarray], labels: np.ndarray, *, size: int = BATCH) -> Play:
    """Give credit for each row whose best class of the first output is the label."""

    def play(run: Run) -> np.ndarray:
        found = [run(feeds)[0] for feeds in batches(arrays, size)]
        return np.concatenate(found).argmax(axis=-1) == labels

    return play


def classifier(
    name: str,
    path: Path,
    calibration: Mapping[str, np.ndarray],
    evaluation: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    batch: int = BATCH,
    note: str = "",
) -> Net:
    """Return a net that is judged by its accuracy; `batch` is 1 where the model fixes that."""
    return Net(
        name=name,
        path=path,
        calibration=batches(calibration, 1),
        play=accuracy(evaluation, labels, size=batch),
        timed={n: a[:1] for n, a in evaluation.items()},
        metric="accuracy",
        rows=len(labels),
        evaluation=digest(labels, *evaluation.values()),
        batch=batch,
        note=note,
    )
