"""Engines kept on the disk: each for one graph, recipe, library and GPU, the oldest removed when they grow too many."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from farrier_contracts.files import write_atomically

PLAN, TIMING, SCRATCH = ".plan", ".timing", ".build-"
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Identity:
    """What an engine hangs on: the SHA-256 of graph and recipe, the library with its version, the GPU."""

    graph: str
    recipe: str
    library: str
    gpu: str

    @property
    def key(self) -> str:
        """The name of the engine's file."""
        return _digest(vars(self))

    @property
    def machine(self) -> str:
        """The name of what does not hang on the model."""
        return _digest({"library": self.library, "gpu": self.gpu})


class Plans:
    """The kept engines of one folder, as one model sees them; without a folder nothing is kept."""

    def __init__(self, folder: Optional[Path], identity: Identity, *, most_bytes: int) -> None:
        self._folder = folder
        self._identity = identity
        self._most_bytes = most_bytes

    @property
    def timing(self) -> Optional[Path]:
        """Where the builder keeps what it measured of kernels, for the next build on this machine."""
        return self._folder and self._folder / (self._identity.machine + TIMING)

    def get(self) -> Optional[bytes]:
        """Return the engine that was built before, None where there is none or the file is damaged."""
        path = self._path
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        plan = content[DIGEST_BYTES:]
        if content[:DIGEST_BYTES] != hashlib.sha256(plan).digest():
            self.forget()
            return None
        with suppress(OSError):
            path.touch()  # the last to be removed
        return plan

    def put(self, plan: bytes) -> bytes:
        """Keep an engine, if there is room, and return it; a full disk is no reason to fail."""
        path = self._path
        if path is not None and len(plan) + DIGEST_BYTES <= self._most_bytes:
            with suppress(OSError):
                write_atomically(path, [hashlib.sha256(plan).digest(), plan], mode=0o600)
            self._shrink(path)
        return plan

    def forget(self) -> None:
        """Remove the engine."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Lend a folder for the time of a build."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            _sweep(self._folder)
        folder = tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-", dir=self._folder)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _path(self) -> Optional[Path]:
        return self._folder and self._folder / (self._identity.key + PLAN)

    def _shrink(self, newest: Path) -> None:
        """Remove the engines that were not used for longest until all together fit."""
        found = []
        for path in newest.parent.iterdir():
            with suppress(OSError):
                if path.suffix in (PLAN, TIMING) and path not in (newest, self.timing):
                    found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        room = self._most_bytes - (newest.stat().st_size if newest.exists() else 0)
        for _, size, path in sorted(found, reverse=True):
            room -= size
            if room < 0:
                with suppress(OSError):
                    path.unlink()


def _sweep(folder: Path) -> None:
    """Remove the builds of processes that were killed."""
    for left in folder.glob(f"{SCRATCH}*"):
        owner = left.name[len(SCRATCH) :].partition("-")[0]
        try:
            os.kill(int(owner), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:  # it lives, as another user
            continue


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
