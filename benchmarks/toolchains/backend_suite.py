"""Every case of the ONNX backend suite's nodes: import, clean, fuse, and run in ONNX Runtime.

    python -m benchmarks.toolchains.backend_suite [--verbose]

What counts are the cases whose expected outputs ONNX Runtime itself gives for the untouched file. Each of them is then
right, refused with a sentence, or silently wrong. Cases run in a process of their own, since the engine may abort:
where it does so on the untouched file the case is left out, where it does so on ours it is a crash. Three figures:
crashes, silent mismatches, and the share that is right.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from farrier_contracts.errors import FarrierError
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.model import load

from ..figure import emit

GOAL_PERCENT = 98.0
TOLERANCE = 1e-3  # of the suite's own comparisons
LEFT_OUT = ("engine refuses", "engine wrong", "engine crashes")


@functools.lru_cache(maxsize=1)
def cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic divides by zero on purpose
        return {case.name: case for case in collect_testcases(None)}  # pyright: ignore[reportArgumentType]


def results(proto: onnx.ModelProto, inputs: list[Any]) -> list[Any]:
    opened = run.session(proto)
    feeds = {value.name: array for value, array in zip(opened.get_inputs(), inputs, strict=False)}
    return list(opened.run(None, feeds))


def same(left: Any, right: Any) -> bool:
    """Compare outputs of any kind: tensors, sequences of them, and what is optional."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if left is None or right is None:
        return left is right
    a, b = np.asarray(left), np.asarray(right)
    if a.dtype.kind in "OUS":
        return a.shape == b.shape and bool((a == b).all())
    if a.dtype.kind not in "fcbiu":  # a short float that numpy knows by name alone
        a, b = a.astype(np.float32), b.astype(np.float32)
    return run.same([a], [b], tolerance=TOLERANCE)


def original(name: str) -> str:
    """Return "" where the engine gives the suite's answer for the untouched case, else why the case is left out."""
    case = cases()[name]
    inputs, expected = case.data_sets[0]
    try:
        found = results(case.model, inputs)
    except (*run.runtime_errors(), RuntimeError, TypeError, NotImplementedError):
        return "engine refuses"
    return "" if same(found, list(expected)) else "engine wrong"


def ours(name: str) -> tuple[str, str]:
    """Return what became of a case: "right", "refused", "mismatch" or "error", and the sentence to it."""
    case = cases()[name]
    inputs, expected = case.data_sets[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            model = load(path)
            for step in map(passes.get, ("clean", "fuse")):
                model = step.run(model, step.options(), passes.Context())
            found = results(model.proto, inputs)
        except FarrierError as error:
            return "refused", str(error).replace(str(path), "the case")
        except Exception as error:
            return "error", f"{type(error).__name__}: {error}"
    return ("right", "") if same(found, list(expected)) else ("mismatch", "it gives other outputs")


class Workers:
    """One process that runs cases; another takes its place when it dies."""

    def __init__(self) -> None:
        self.pool = self._start()

    def ask(self, function: Any, name: str, otherwise: Any) -> Any:
        """Return `function(name)`, or `otherwise` where the process dies over it."""
        try:
            return self.pool.submit(function, name).result()
        except BrokenProcessPool:
            self.pool = self._start()
            return otherwise

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--verbose", action="store_true", help="Name the cases that are left out.")
    verbose = parser.parse_args().verbose
    counts: Counter[str] = Counter()
    workers = Workers()
    for name in cases():
        reason = workers.ask(original, name, "engine crashes")
        kind, why = (reason, "") if reason else workers.ask(ours, name, ("crash", "the process died"))
        counts[kind] += 1
        if kind not in ("right", *LEFT_OUT) or (verbose and kind != "right"):
            print(f"{kind}: {name} {why}".rstrip())
    workers.pool.shutdown()
    print(", ".join(f"{count} {kind}" for kind, count in counts.most_common()))
    judged = sum(counts.values()) - sum(counts[kind] for kind in LEFT_OUT)
    emit("backend_suite_crashes", counts["crash"] + counts["error"], goal=0, unit="cases", at_most=True)
    emit("backend_suite_mismatches", counts["mismatch"], goal=0, unit="cases", at_most=True)
    emit("backend_suite_right", 100 * counts["right"] / judged, goal=GOAL_PERCENT, unit="%")


if __name__ == "__main__":
    main()
