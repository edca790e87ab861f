"""The rows of a pruning: to weigh channels with, to train on, to judge by, to time with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farrier_converters import data as datasets
from farrier_converters.data import Dataset
from farrier_converters.model import Model

from ..distilling.rows import Stream, read

CALIBRATION_BATCH = 32  # rows, where the model leaves that free


@dataclass(frozen=True)
class Material:
    """What there is: None where no rows were given for it. `timing` is made up where nothing was given."""

    timing: Dataset
    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    training: Stream | None = None
    validation: Stream | None = None
    notes: tuple[str, ...] = ()

    def batches(self) -> Callable[[], Iterator[dict[str, np.ndarray]]] | None:
        """Return what starts a fresh stream of calibration inputs."""
        found = self.calibration
        if found is None:
            return None
        size = found.fixed_batch or min(CALIBRATION_BATCH, len(found))
        return lambda: (feeds for feeds, _ in found.batches(size))


def gather(
    model: Model,
    *,
    calib: Path | None,
    train: Path | None,
    data: Path | None,
    batch: int,
    seed: int,
) -> Material:
    """Read and check the rows; raises InputError in one sentence.

    Rows that judge do not calibrate: where only `data` is given, a part of it does. A tenth of the training rows
    chooses the best epoch, and a fifth judges where no `data` is given.
    """
    inputs = model.inputs
    own = None if calib is None else datasets.load(calib, inputs)
    if train is not None:
        shares = read(train, data, inputs, unlabelled=False, seed=seed)
        return Material(
            shares.training.take(shares.training.rows[:1]),
            own or shares.training,
            shares.evaluation,
            Stream(shares.training, batch, seed),
            Stream(shares.validation, batch, seed),
            (*shares.notes, *Stream(shares.training, batch, seed).notes),
        )
    if data is not None:
        rows = datasets.split(datasets.load(data, inputs), own, datasets.DataSettings(seed=seed))
        notes = (*rows.evaluation.notes, *rows.notes)
        return Material(rows.evaluation, rows.calibration, rows.evaluation, notes=notes)
    if own is not None:
        return Material(own, own, notes=own.notes)
    return Material(datasets.random(inputs))
