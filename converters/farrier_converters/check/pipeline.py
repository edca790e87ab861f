"""A network over several Edge TPUs: segments balanced by predicted time, or by times that were measured.

Predicted are multiply-adds, at the rate of Coral's own benchmark of MobileNet v2 (300 million in 2.6 ms), and over USB
3 at 320 MB/s what enters and leaves a segment and the parameters that do not fit beside each other on chip. Both rates
are inferred: they weigh segments against each other, and promise no latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from farrier_contracts.errors import UsageError

from ..tflite.file import TfliteFile
from ..tflite.segments import Cost, balanced, cut
from . import costs
from .network import of_tflite

MULTIPLY_ADDS_PER_S = 1.2e11
LINK_BYTES_PER_S = 320e6
CACHE_BYTES = 6 << 20  # of parameters beside each other on chip


@dataclass(frozen=True)
class Segment:
    """Operators from `first` to `last`; sizes are in bytes. `seconds` is predicted, or the sum of what was measured."""

    first: int
    last: int
    parameter_bytes: int
    bytes_in: int
    bytes_out: int
    multiply_adds: int
    seconds: float


def plan(
    file: TfliteFile, parts: int, *, measured: Sequence[float] | None = None, cache_bytes: int = CACHE_BYTES
) -> list[Segment]:
    """Return the segments whose slowest one is fastest; `measured` are seconds by operator. Raises UsageError."""
    if measured is not None and len(measured) != len(file.operators):
        raise UsageError(f"there are {len(measured)} times for {len(file.operators)} operators")
    cost = _summed(measured) if measured is not None else _predicted(file, cache_bytes)
    starts = balanced(file, parts, cost)
    stops = [*starts[1:], len(file.operators)]
    return [
        _segment(part, start, stop - 1, cost(start, stop))
        for part, start, stop in zip(cut(file, starts), starts, stops, strict=True)
    ]


def _summed(seconds: Sequence[float]) -> Cost:
    sums = [0.0, *accumulate(seconds)]
    return lambda start, stop: sums[stop] - sums[start]


def _predicted(file: TfliteFile, cache_bytes: int) -> Cost:
    network = of_tflite(file)
    arithmetic = _summed([step.multiply_adds / MULTIPLY_ADDS_PER_S for step in network.steps])
    parameters = _summed(_parameters(file))
    border = _crossing(file)

    def cost(start: int, stop: int) -> float:
        streamed = max(parameters(start, stop) - cache_bytes, 0.0)
        return arithmetic(start, stop) + (streamed + border[start] + border[stop]) / LINK_BYTES_PER_S

    return cost


def _parameters(file: TfliteFile) -> list[float]:
    """Return by operator the bytes of its constants; one that several read counts for the first."""
    seen: set[int] = set()
    found: list[float] = []
    for operator in file.operators:
        new = {n for n in operator.inputs if n >= 0 and file.tensors[n].data is not None} - seen
        seen |= new
        found.append(float(sum(costs.bytes_of(file.tensors[name]) for name in new)))
    return found


def _crossing(file: TfliteFile) -> list[int]:
    """Return by position the bytes that are made before it and read behind it; at both ends those of the whole."""
    count = len(file.operators)
    made = {name: operator.index for operator in file.operators for name in operator.outputs}
    last = {name: operator.index for operator in file.operators for name in operator.inputs if name >= 0}
    last |= dict.fromkeys(file.outputs, count)
    change = [0] * (count + 2)
    for name, end in last.items():
        tensor = file.tensors[name]
        if tensor.data is None and not tensor.variable:
            begin = made.get(name, -1) + 1
            if end >= begin:
                change[begin] += costs.bytes_of(tensor)
                change[end + 1] -= costs.bytes_of(tensor)
    return list(accumulate(change))[: count + 1]


def _segment(part: TfliteFile, first: int, last: int, seconds: float) -> Segment:
    network = of_tflite(part)
    return Segment(
        first,
        last,
        network.parameter_bytes,
        sum(network.sizes[name] for name in network.inputs),
        sum(network.sizes[name] for name in network.outputs),
        sum(step.multiply_adds for step in network.steps),
        seconds,
    )
