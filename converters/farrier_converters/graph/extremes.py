"""The largest magnitudes that the tensors of a graph take on data, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from . import run
from .types import TensorType, infer


@dataclass(frozen=True)
class ExtremesSettings:
    """What bounds time and memory."""

    batches: int = 8  # of the data at most
    values: int = 1 << 21  # of the data's elements, after which no further batch is looked at; one always is
    chunk_elements: int = 1 << 24  # fetched in one run, for a batch of one
    threads: int = run.THREADS


def largest_magnitudes(
    proto: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
    *,
    settings: ExtremesSettings = ExtremesSettings(),
) -> dict[str, float]:
    """Return the largest finite magnitude of each float32 tensor; infinities and NaN are passed over.

    Raises InputError for data that the graph cannot run on.
    """
    inputs = {value.name for value in proto.graph.input}
    found = dict.fromkeys(tensors, 0.0)
    for chunk in _chunks(infer(proto), [name for name in tensors if name not in inputs], settings):
        session = run.session(run.up_to(proto, chunk), threads=settings.threads)
        for feeds in _some(batches(), settings):
            try:
                values = session.run(chunk, feeds)
            except run.runtime_errors() as error:
                raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
            for name, value in zip(chunk, values, strict=True):
                found[name] = max(found[name], _largest(np.asarray(value)))
    for feeds in _some(batches(), settings):
        for name in inputs.intersection(tensors, feeds):
            found[name] = max(found[name], _largest(feeds[name]))
    return found


def _some(
    batches: Iterator[dict[str, np.ndarray]], settings: ExtremesSettings
) -> Iterator[dict[str, np.ndarray]]:
    seen = 0
    for feeds in islice(batches, settings.batches):
        yield feeds
        seen += sum(value.size for value in feeds.values())
        if seen >= settings.values:
            return


def _largest(value: np.ndarray) -> float:
    magnitude = np.abs(value, dtype=np.float32)
    return float(np.max(magnitude, initial=0, where=np.isfinite(magnitude)))


def _chunks(types: dict[str, TensorType], tensors: list[str], settings: ExtremesSettings) -> list[list[str]]:
    chunks: list[list[str]] = []
    total = settings.chunk_elements + 1
    for name in tensors:
        kind = types.get(name)
        shape = kind.shape if kind is not None and kind.shape is not None else ()
        elements = int(np.prod([size or 1 for size in shape]))
        if total + elements > settings.chunk_elements:
            chunks.append([])
            total = 0
        chunks[-1].append(name)
        total += elements
    return chunks
