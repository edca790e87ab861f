"""Keep the statistics of an unfinished calibration on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import onnx

from .observe import BINS, Observer

FORMAT = 1
FIELDS = ("low", "high", "mean_low", "mean_high", "reach", "seen", "batches", "zeros")
WHOLE = ("seen", "batches", "zeros")

Feeds = dict[str, np.ndarray]


class Checkpoint:
    """The saved statistics of observing some tensors of a graph: one file, written every `interval_s` seconds.

    The file's name is a digest of graph and tensors; inside stands a digest of the batches seen so far, and what is
    saved counts only if the same batches come again. Without a folder nothing is kept.
    """

    def __init__(
        self, folder: Path | None, proto: onnx.ModelProto, tensors: Sequence[str], *, interval_s: float
    ) -> None:
        self.path: Path | None = None
        self.interval_s = interval_s
        self.digest = hashlib.sha256()
        self.passed = 0
        self.last = time.monotonic()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            key = hashlib.sha256(f"{FORMAT} {BINS} {FIELDS}\n".encode())
            key.update(proto.SerializeToString(deterministic=True))
            key.update("\0".join(tensors).encode())
            self.path = folder / f"calibration-{key.hexdigest()[:32]}.npz"

    def resume(
        self, batches: Callable[[], Iterator[Feeds]], observers: Sequence[Observer]
    ) -> tuple[int, Iterator[Feeds]]:
        """Set the observers to what is saved for these batches; return how many those are, and the batches to come."""
        saved = self._load()
        stream = batches()
        if saved is None:
            return 0, stream
        for feeds in islice(stream, int(saved["passed"])):
            self.take(feeds)
        if self.passed != int(saved["passed"]) or self.digest.hexdigest() != str(saved["digest"]):
            self.digest, self.passed = hashlib.sha256(), 0  # other data
            return 0, batches()
        for observer, numbers, counts in zip(observers, saved["numbers"], saved["counts"], strict=True):
            for name, value in zip(FIELDS, numbers.tolist(), strict=True):
                setattr(observer, name, int(value) if name in WHOLE else value)
            observer.counts = counts.copy()
        return self.passed, stream

    def take(self, feeds: Feeds) -> None:
        """Take note of a batch."""
        self.passed += 1
        if self.path is None:
            return
        for name in sorted(feeds):
            value = np.ascontiguousarray(feeds[name])
            self.digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
            self.digest.update(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())

    def save(self, observers: Sequence[Observer], *, last: bool = False) -> None:
        """Write the statistics after the batch just taken, if it is time to, in a step that a kill cannot halve."""
        if self.path is None or not (last or time.monotonic() - self.last >= self.interval_s):
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                passed=np.array(self.passed),
                digest=np.array(self.digest.hexdigest()),
                numbers=np.array([[getattr(o, name) for name in FIELDS] for o in observers], np.float64),
                counts=np.stack([o.counts for o in observers]),
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self.last = time.monotonic()

    def _load(self) -> dict[str, np.ndarray] | None:
        """Return what is saved; a file that cannot be read is as good as none."""
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in ("passed", "digest", "numbers", "counts")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
