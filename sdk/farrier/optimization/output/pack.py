"""The bundle: the delivered artifact with golden vectors, warm-up input, batch profile and the recipe's lock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farrier_contracts import bundle
from farrier_contracts.targets import Target
from farrier_converters import npz
from farrier_converters.data import Dataset
from farrier_converters.measure import ChildSettings
from farrier_converters.model import opset

from ..build import Built

GOLDEN_CASES = 8
# How far a golden output may be off, as a share of that output's largest absolute value over all cases. Other
# processors add in another order (fp32), round halves at other places (fp16), and a value on the border between
# two quanta may fall to either side at a few places in a row (int8: four quanta of 255).
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 4 / 255}
LARGEST_TOLERANCE = max(TOLERANCES.values())  # for a precision that a recipe made up
SMALLEST_TOLERANCE = 1e-6  # absolute, for an output that is all zero
PROFILE_TIE = 0.95  # a larger batch must give this share of a smaller one's time per row to be worth it

# The first ONNX Runtime that reads an opset or a file format version (ONNX Runtime documentation, "Compatibility").
OLDEST_RUNTIME = (1, 11)
RUNTIME = "onnxruntime"
RUNTIME_OF_OPSET = {17: (1, 12), 18: (1, 14), 19: (1, 15), 20: (1, 17), 21: (1, 18), 22: (1, 20), 23: (1, 22)}
RUNTIME_OF_IR = {10: (1, 18), 11: (1, 22), 12: (1, 23), 13: (1, 24)}


@dataclass(frozen=True)
class Vectors:
    """Inputs and outputs that a device can check itself with, as .npz bytes.

    `golden` holds `in.NAME` and `out.NAME`, `warmup` one case of `in.NAME`. Their first axis counts the cases: an
    array with the tensor's own rank takes the place of its batch axis (one row per case), an array with one rank
    more holds a whole tensor per case.
    """

    golden: bytes
    warmup: bytes
    atol: Mapping[str, float]


def vectors(built: Built, data: Dataset, settings: ChildSettings, *, cases: int = GOLDEN_CASES) -> Vectors:
    """Run up to `cases` rows through the artifact, one by one, with the answers that its target will give."""
    step = data.fixed_batch or 1
    starts = range(0, min(cases * step, len(data) - len(data) % step or len(data)), step)
    feeds = [data.feed(np.resize(data.rows[start : start + step], step)) for start in starts]
    with built.judge(settings) as child:
        outputs = [child.run(feed) for feed in feeds]
    whole = data.constant | data.stacked
    inputs = {f"in.{n}": _join([f[n] for f in feeds], step=step, whole=n in whole) for n in feeds[0]}
    wanted = {f"out.{n}": _join([o[n] for o in outputs], step=step, whole=False) for n in outputs[0]}
    share = TOLERANCES.get(built.candidate.precision, LARGEST_TOLERANCE)
    return Vectors(
        golden=npz.to_bytes({**inputs, **wanted}),
        warmup=npz.to_bytes({name: array[:1] for name, array in inputs.items()}),
        atol={name.removeprefix("out."): _tolerance(array, share) for name, array in wanted.items()},
    )


def _join(arrays: Sequence[np.ndarray], *, step: int, whole: bool) -> np.ndarray:
    rows = step == 1 and not whole and arrays[0].ndim > 0 and all(a.shape[0] == 1 for a in arrays)
    return np.concatenate(arrays) if rows else np.stack(arrays)


def _tolerance(array: np.ndarray, share: float) -> float:
    if not np.issubdtype(array.dtype, np.floating) or not array.size:
        return 0.0
    return max(SMALLEST_TOLERANCE, float(f"{np.abs(array).max() * share:.3g}"))


def write(
    path: Path,
    built: Built,
    *,
    target: Target,
    name: str,
    version: str,
    checks: Vectors,
    profile: Sequence[tuple[int, float]],
    peak_memory_bytes: int,
    lock: bytes,
) -> bundle.Manifest:
    """Write the bundle file and return its manifest; raises BundleError."""
    toolchain = built.candidate.toolchain
    manifest = bundle.Manifest(
        name=name,
        version=version,
        inputs=built.model.inputs,
        outputs=built.model.outputs,
        artifacts=(
            bundle.Artifact(
                part=built.path.name,
                format=toolchain.format,
                engine=toolchain.engine,
                precision=built.candidate.precision,
                target=target.name,
                options=built.options,
            ),
        ),
        golden=bundle.Golden("golden.npz", checks.atol),
        warmup="warmup.npz",
        batching=bundle.Batching(
            max_batch=best_batch(profile),
            profile=tuple(bundle.BatchPoint(batch, latency) for batch, latency in profile),
        ),
        compatibility=bundle.Compatibility(
            arch=() if target.arch == "any" else (target.arch,),
            engines={RUNTIME: oldest_runtime(built)} if toolchain.engine == RUNTIME else {},
            memory_bytes=peak_memory_bytes,
            accelerators=target.accelerators,
        ),
        recipe_lock="recipe.lock",
    )
    parts: dict[str, bytes | Path] = {
        built.path.name: built.path,
        "golden.npz": checks.golden,
        "warmup.npz": checks.warmup,
        "recipe.lock": lock,
    }
    return bundle.build(path, manifest, parts)


def best_batch(profile: Sequence[tuple[int, float]]) -> int:
    """Return the batch with the least time per row; a larger one must be clearly better than a smaller one."""
    best = 1
    least = float("inf")
    for batch, latency in sorted(profile):
        if latency / batch < least * PROFILE_TIE:
            best, least = batch, latency / batch
    return best


def oldest_runtime(built: Built) -> str:
    """Return the lowest ONNX Runtime version that reads the artifact."""
    proto = built.model.proto
    by_opset = RUNTIME_OF_OPSET.get(min(opset(proto), max(RUNTIME_OF_OPSET)), OLDEST_RUNTIME)
    by_format = RUNTIME_OF_IR.get(min(proto.ir_version, max(RUNTIME_OF_IR)), OLDEST_RUNTIME)
    return ".".join(map(str, max(by_opset, by_format)))


def bundle_name(text: str) -> str:
    """Return a legal bundle name made from any text, such as a file's stem."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "model"
