"""What placing quantizers decides."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Placement:
    """What was decided. Nodes are named by `id`; `shares` maps a tensor to one whose scale it has."""

    made: dict[str, None] = field(default_factory=dict)  # tensors that an integer node makes, in graph order
    read: dict[str, None] = field(default_factory=dict)  # float tensors that an integer node reads
    integer: set[int] = field(default_factory=set)
    absorbed: set[int] = field(default_factory=set)  # activation functions that belong to the node before
    constants: dict[int, str] = field(
        default_factory=dict
    )  # constant operands of integer Add and Mul, by node
    shares: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    single: set[int] = field(default_factory=set)  # nodes with one scale for all of their weights

    def root(self, name: str) -> str:
        """Return the tensor that stands for all those which share this one's scale."""
        while self.shares.get(name, name) != name:
            name = self.shares[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Let two tensors share one scale."""
        self.shares[self.root(second)] = self.root(first)

    @property
    def points(self) -> list[str]:
        """The tensors that get a quantizer."""
        return [*self.read, *self.made]
