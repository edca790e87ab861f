"""A minimum cut: which of two sides each member takes where both the sides and the borders cost something."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SOURCE, SINK = 0, 1
ENDLESS = 1 << 60


@dataclass
class Network:
    """A flow network with whole capacities. Members are numbered from 2; 0 is the source, 1 the sink."""

    edges: list[list[int]] = field(default_factory=list)  # [head, capacity left]; i ^ 1 is the way back
    leaving: list[list[int]] = field(default_factory=lambda: [[], []])

    def member(self) -> int:
        """Add a member and return its number."""
        self.leaving.append([])
        return len(self.leaving) - 1

    def connect(self, tail: int, head: int, capacity: int) -> None:
        """Ask for `capacity` where `tail` is on the source's side and `head` is not."""
        self.leaving[tail].append(len(self.edges))
        self.edges.append([head, capacity])
        self.leaving[head].append(len(self.edges))
        self.edges.append([tail, 0])

    def source_side(self) -> frozenset[int]:
        """Return the smallest source side of a minimum cut (Edmonds and Karp, JACM 19(2), 1972)."""
        while True:
            found = self._search()
            if SINK not in found:
                return frozenset(found)
            self._push(found)

    def _search(self) -> dict[int, int]:
        """Return the members in reach of the source, each with the edge that leads to it."""
        found = {SOURCE: -1}
        queue = deque([SOURCE])
        while queue and SINK not in found:
            for number in self.leaving[queue.popleft()]:
                head, left = self.edges[number]
                if left > 0 and head not in found:
                    found[head] = number
                    queue.append(head)
        return found

    def _push(self, found: dict[int, int]) -> None:
        path = []
        place = SINK
        while place != SOURCE:
            path.append(found[place])
            place = self.edges[found[place] ^ 1][0]
        amount = min(self.edges[number][1] for number in path)
        for number in path:
            self.edges[number][1] -= amount
            self.edges[number ^ 1][1] += amount
