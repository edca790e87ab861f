"""From a candidate to an artifact: passes, then the toolchain's compiler, with a digest of every step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_converters import compilers, passes
from farrier_converters.model import Model, save
from farrier_converters.search import Candidate

from .recipe import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


@dataclass(frozen=True)
class Built:
    """A candidate's artifact, its graph, and the SHA-256 of the graph after each pass."""

    candidate: Candidate
    model: Model
    path: Path
    digests: tuple[str, ...]
    batch: int = 1  # rows per calibration run

    @property
    def size_bytes(self) -> int:
        """The artifact's size."""
        return self.path.stat().st_size


def build(
    model: Model,
    candidate: Candidate,
    folder: Path,
    *,
    batch: int,
    calibration: Callable[[], Iterator[dict[str, np.ndarray]]],
    progress: Callable[[str, float], None],
) -> Built:
    """Apply the candidate's passes and compile into `folder`; raises whatever a pass or compiler raises."""
    context = passes.Context(
        arithmetic=candidate.toolchain.arithmetic, calibration=calibration, progress=progress
    )
    digests = []
    for step in candidate.steps:
        model = passes.get(step.name).run(model, options(step), context)
        digests.append(digest_of(model))
    folder.mkdir()
    path = compilers.get(candidate.toolchain.compiler).compile(model, candidate.toolchain, folder)
    return Built(candidate, model, path, tuple(digests), batch)


def as_it_came(model: Model, candidate: Candidate, folder: Path) -> Built:
    """Write the original model into `folder` without loading it in any engine: it may take the process down."""
    folder.mkdir()
    path = folder / f"{model.name}.{candidate.toolchain.format}"
    save(model, path)
    return Built(candidate, model, path, ())


def digest_of(model: Model) -> str:
    """Return the SHA-256 of a graph's deterministic bytes."""
    return hashlib.sha256(model.proto.SerializeToString(deterministic=True)).hexdigest()


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
