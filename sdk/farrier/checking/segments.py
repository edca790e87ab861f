"""A network in segments, for several accelerators one behind the other."""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.errors import UsageError
from farrier_converters.check.pipeline import CACHE_BYTES, Segment, plan
from farrier_converters.check.predict import Prediction
from farrier_converters.tflite.segments import cut
from farrier_converters.tflite.write import write as to_bytes

from .result import Check

CACHE = "parameter_cache_bytes"  # the toolchain's parameter


def planned(prediction: Prediction, count: int, *, write: bool) -> tuple[Segment, ...]:
    """Return the segments for so many accelerators, none for one; raises UsageError where there is no way."""
    if count < 1:
        raise UsageError(f"a network is cut into 1 segment or more, not {count}")
    if count == 1 and not write:
        return ()
    if prediction.file is None:
        raise UsageError(
            f"{prediction.toolchain.compiler} builds no TFLite file, which is what is cut into segments"
        )
    if write and prediction.as_if:
        raise UsageError(
            "segments are written of a quantized model: quantize it first, with farrier optimize"
        )
    cache = int(prediction.toolchain.parameters.get(CACHE, CACHE_BYTES))
    return tuple(plan(prediction.file, count, cache_bytes=cache))


def write(result: Check, folder: Path) -> list[Path]:
    """Write each segment as a TFLite file for the accelerator's compiler; returns their paths, first to last."""
    file = result.prediction.file
    assert file is not None
    folder.mkdir(parents=True, exist_ok=True)
    parts = cut(file, [segment.first for segment in result.segments])
    contents = [to_bytes(part) for part in parts]
    paths = [folder / f"{result.model.stem}_segment_{i}_of_{len(parts)}.tflite" for i in range(len(parts))]
    unfinished = [path.with_name(f".{path.name}.part") for path in paths]
    try:
        for path, content in zip(unfinished, contents, strict=True):
            path.write_bytes(content)
        for path, final in zip(unfinished, paths, strict=True):
            path.replace(final)
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    return paths
