"""Which waiting requests may run together, and how their rows are joined and parted again. Pure functions.

Only tensors whose axis 0 is free may be joined, and only requests whose names, dtypes and trailing shapes agree.
A batch is greedy: what waits now, oldest first, up to the largest batch that measurement has shown to pay.
"""

from __future__ import annotations

from typing import Deque, Dict, Hashable, List, Mapping, Protocol, Sequence, Tuple, TypeVar

import numpy as np

from farrier_contracts.bundle import Batching, Manifest
from farrier_contracts.tensors import DYNAMIC

BEST_WITHIN = 0.03  # of the best time per item: the largest batch that is this close is chosen

Arrays = Mapping[str, np.ndarray]


class Waiting(Protocol):
    """A request as these rules see it: requests with one signature may run together."""

    @property
    def signature(self) -> Hashable:
        """What must agree."""
        ...

    @property
    def rows(self) -> int:
        """The length of axis 0."""
        ...


Request = TypeVar("Request", bound=Waiting)


def largest_batch(manifest: Manifest) -> int:
    """Return how many rows may run together."""
    return useful_batch(manifest.batching) if has_rows(manifest) else 1


def has_rows(manifest: Manifest) -> bool:
    """Say whether axis 0 counts rows: it is free in every input and output, and the maker allowed batches."""
    tensors = (*manifest.inputs, *manifest.outputs)
    return manifest.batching.max_batch > 1 and all(s.shape and s.shape[0] == DYNAMIC for s in tensors)


def useful_batch(batching: Batching) -> int:
    """Return the largest measured batch whose time per item is within BEST_WITHIN of the best one.

    A larger one costs more per item. Without a profile nothing larger than 1 has been shown to pay.
    """
    points = [p for p in batching.profile if 1 <= p.batch <= batching.max_batch and p.latency_ms > 0]
    if not points:
        return 1
    best = min(point.latency_ms / point.batch for point in points)
    return max(p.batch for p in points if p.latency_ms / p.batch <= best * (1 + BEST_WITHIN))


def signature(inputs: Arrays) -> Tuple[Hashable, ...]:
    """Return what two requests must share to run together."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items())


def take(waiting: Deque[Request], max_rows: int) -> List[Request]:
    """Remove and return the oldest request and all those behind it that may and can run with it.

    The others keep their order, so that none is passed over for ever. A single request of more rows than
    `max_rows` runs alone.
    """
    first = waiting.popleft()
    batch, rows, kept = [first], first.rows, []
    while waiting and rows < max_rows:
        request = waiting.popleft()
        if request.signature == first.signature and rows + request.rows <= max_rows:
            batch.append(request)
            rows += request.rows
        else:
            kept.append(request)
    waiting.extendleft(reversed(kept))
    return batch


def join(requests: Sequence[Arrays]) -> Arrays:
    """Return one set of inputs that holds the rows of all requests, in their order."""
    if len(requests) == 1:
        return requests[0]
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def part(outputs: Arrays, rows: Sequence[int]) -> List[Dict[str, np.ndarray]]:
    """Return each request's own rows of the outputs (views); ValueError where an output has another row count."""
    if len(rows) == 1:
        return [dict(outputs)]
    total = sum(rows)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != total:
            raise ValueError(f"output {name!r} has not one row for each input row")
    parts, start = [], 0
    for count in rows:
        parts.append({name: array[start : start + count] for name, array in outputs.items()})
        start += count
    return parts
