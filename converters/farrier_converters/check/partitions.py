"""Runs of operators on one unit, what crosses their borders, and how much memory activations need at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from .network import Network


@dataclass(frozen=True)
class Partition:
    """Operators that run on one unit without a change in between, by their place in the network."""

    unit: str
    steps: tuple[int, ...]
    bytes_in: int
    bytes_out: int
    multiply_adds: int


def partition(network: Network, units: Sequence[str]) -> tuple[Partition, ...]:
    """Cut a network into partitions: each takes in all that is ready on its unit before another unit has its turn."""
    waiting, followers = _dependences(network)
    ready: dict[str, list[int]] = {unit: [] for unit in units}
    for index in (index for index, count in enumerate(waiting) if not count):
        heappush(ready[units[index]], index)
    readers = _readers(network)
    found: list[Partition] = []
    while any(ready.values()):
        unit = units[min(heap[0] for heap in ready.values() if heap)]
        chosen: list[int] = []
        while ready[unit]:
            chosen.append(heappop(ready[unit]))
            for follower in followers[chosen[-1]]:
                waiting[follower] -= 1
                if not waiting[follower]:
                    heappush(ready[units[follower]], follower)
        found.append(_partition(network, unit, sorted(chosen), readers))
    return tuple(found)


def _dependences(network: Network) -> tuple[list[int], list[list[int]]]:
    """Return by step how many earlier steps it waits for, and which later ones wait for it."""
    makers = {name: index for index, step in enumerate(network.steps) for name in step.writes}
    followers: list[list[int]] = [[] for _ in network.steps]
    waiting = [0] * len(network.steps)
    for index, step in enumerate(network.steps):
        for maker in {makers[name] for name in step.reads if name in makers}:
            if maker < index:  # what is read before it is made (a state) is waited for by nobody
                followers[maker].append(index)
                waiting[index] += 1
    return waiting, followers


def _readers(network: Network) -> dict[str, set[int]]:
    """Return by tensor the steps that read it; the end of the network counts as one more."""
    readers: dict[str, set[int]] = {name: {len(network.steps)} for name in network.outputs}
    for index, step in enumerate(network.steps):
        for name in step.reads:
            readers.setdefault(name, set()).add(index)
    return readers


def _partition(network: Network, unit: str, chosen: list[int], readers: dict[str, set[int]]) -> Partition:
    members = set(chosen)
    steps = [network.steps[index] for index in chosen]
    made = {name for step in steps for name in step.writes}
    read = {name for step in steps for name in step.reads}
    leaving = {name for name in made if readers.get(name, members) - members}
    return Partition(
        unit,
        tuple(chosen),
        sum(network.sizes.get(name, 0) for name in read - made),
        sum(network.sizes.get(name, 0) for name in leaving),
        sum(step.multiply_adds for step in steps),
    )


def crossing_bytes(network: Network, units: Sequence[str]) -> int:
    """Return the bytes that one inference carries from one unit to another, once for each unit that reads them."""
    makers = {name: units[index] for index, step in enumerate(network.steps) for name in step.writes}
    crossings = {
        (name, units[index])
        for index, step in enumerate(network.steps)
        for name in step.reads
        if makers.get(name, units[index]) != units[index]
    }
    return sum(network.sizes.get(name, 0) for name, _ in crossings)


def peak_activation_bytes(network: Network) -> int:
    """Return the most bytes of activations alive at once, in order of execution and without reuse in place."""
    last = {name: index for index, step in enumerate(network.steps) for name in step.reads}
    last |= dict.fromkeys(network.outputs, len(network.steps))
    alive = {name: network.sizes.get(name, 0) for name in network.inputs if name in last}
    peak = total = sum(alive.values())
    for index, step in enumerate(network.steps):
        for name in step.writes:
            if name not in alive:
                alive[name] = network.sizes.get(name, 0)
                total += alive[name]
        peak = max(peak, total)
        for name in {*step.reads, *step.writes}:
            if last.get(name, index) <= index:
                total -= alive.pop(name, 0)
    return peak
