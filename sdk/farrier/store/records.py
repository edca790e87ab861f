"""What the fleet store tells: frozen records, the same for the command line, the dashboard and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farrier_contracts.wire.documents import Desired, Reported


@dataclass(frozen=True)
class Device:
    """One device as last heard of; `seen_ns` is the collector's wall time of its last message, 0 for never."""

    id: int
    fleet: str
    name: str
    online: bool
    session: int
    boot: str
    seen_ns: int
    birth: Mapping[str, Any]
    reported: Reported | None
    desired: Desired | None


@dataclass(frozen=True)
class Balance:
    """The account of one stream of one boot: received + ledgered = produced once all is in.

    `produced` is what the device last stated, or what its newest stored point proves where that is more: a device that
    goes on is ahead of its last statement. `ledgered` counts the numbers that the device says it dropped and that are
    not stored either; `acknowledged` is the last number acknowledged to the device (-1 for none).
    """

    boot: str
    stream: str
    produced: int
    received: int
    ledgered: int
    duplicates: int
    acknowledged: int
    stated: bool

    @property
    def missing(self) -> int:
        """Count what was produced and is neither stored nor ledgered: on its way, or lost without a word."""
        return self.produced - self.received - self.ledgered

    @property
    def settled(self) -> bool:
        """Say whether every point known to have been produced is stored or known to be lost."""
        return self.missing == 0


@dataclass(frozen=True)
class Totals:
    """The sums over all devices of a fleet, or of a store."""

    devices: int
    online: int
    produced: int
    received: int
    ledgered: int
    duplicates: int
    missing: int
    unsettled: int  # streams


@dataclass(frozen=True)
class Bucket:
    """What one metric read within one slice of time that begins at `start_ns` (wall time)."""

    start_ns: int
    count: int
    total: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean of the readings."""
        return self.total / self.count


@dataclass(frozen=True)
class Reading:
    """The newest point of one stream."""

    stream: str
    wall_ns: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Event:
    """Something that happened on a device; `document` is as the device sent it."""

    kind: str
    wall_ns: int
    document: Mapping[str, Any]
