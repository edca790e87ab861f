"""Calibration feeds in one file, so that a peer can run in a process and an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write(path: Path, feeds: Sequence[dict[str, np.ndarray]]) -> None:
    np.savez(path, **{f"{i}/{name}": a for i, feed in enumerate(feeds) for name, a in feed.items()})  # type: ignore[arg-type]


def read(path: Path) -> list[dict[str, np.ndarray]]:
    feeds: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as found:
        for key in found.files:
            index, _, name = key.partition("/")
            feeds.setdefault(int(index), {})[name] = found[key]
    return [feeds[index] for index in sorted(feeds)]
