"""An import, checked: against the file in LiteRT, and the free batch against single rows."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np

from ...graph import run
from ...graph.types import infer
from ...measure import Child, ChildSettings, EngineFailure
from ...model import Model

TOLERANCE = 1e-4  # |ours - LiteRT's| <= TOLERANCE * (1 + |LiteRT's|)
MAX_CHECKED_ELEMENTS = 1 << 26  # of the largest tensor; beyond, a check would take too much memory
RUN_LIMIT_S = 60.0


def against_litert(path: Path, model: Model, *, exact: bool = True) -> tuple[str, ...]:
    """Run both on the same standard normal noise; return one sentence for each output that differs by more than 1e-4.

    LiteRT runs in a process of its own, which a broken file may take down. Without LiteRT nothing is checked. An
    inexact import (weights of 8 bits) is compared too, and its distance told.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        return (
            f"{path.name} was not compared with LiteRT, which is not installed (pip install ai-edge-litert)",
        )
    if not _affordable(model):
        return (f"{path.name} was not compared with LiteRT: its tensors are too large",)
    feeds = run.sample(model)
    ours = run.try_once(model.proto, feeds)
    if ours is None:
        return (f"{path.name} was imported, but ONNX Runtime does not run it on noise",)
    try:
        with Child(path, "litert", ChildSettings(run_limit_s=RUN_LIMIT_S)) as child:
            theirs = child.run(feeds)
    except EngineFailure as error:
        return (f"{path.name} was not compared with LiteRT: {error}",)
    warnings = []
    for spec, mine in zip(model.outputs, ours, strict=True):
        expected = theirs.get(spec.name)
        if expected is None or expected.shape != np.shape(mine):
            warnings.append(f"the output {spec.name!r} of the import does not fit what LiteRT returns")
        elif not run.same([mine], [expected], tolerance=TOLERANCE):
            distance = float(np.abs(np.asarray(mine, np.float64) - expected).max())
            reason = "" if exact else ", because LiteRT rounds its activations to 8 bits"
            warnings.append(
                f"the output {spec.name!r} of the import differs from LiteRT's by up to {distance:.2g}{reason}"
            )
    return tuple(warnings)


def rows_are_independent(model: Model) -> bool:
    """Say whether a batch of two gives what its rows give alone (True too where ONNX Runtime cannot say)."""
    if not _affordable(model):
        return True
    feeds = [run.sample(model, seed=seed) for seed in (0, 1)]
    single = [run.try_once(model.proto, f) for f in feeds]
    if single[0] is None or single[1] is None:
        return True
    both = run.try_once(model.proto, {n: np.concatenate([f[n] for f in feeds]) for n in feeds[0]})
    expected = [np.concatenate(pair) for pair in zip(*single, strict=True)]
    return both is not None and run.same(both, expected, tolerance=TOLERANCE)


def _affordable(model: Model) -> bool:
    sizes = (t.shape for t in infer(model.proto).values() if t.shape is not None)
    return all(math.prod(size or 1 for size in shape) <= MAX_CHECKED_ELEMENTS for shape in sizes)
