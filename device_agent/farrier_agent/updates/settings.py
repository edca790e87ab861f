"""The limits of fetching, and the error that more patience may cure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from farrier_contracts.errors import FarrierError

EX_TEMPFAIL = 75  # sysexits.h: try again later


class TryAgain(FarrierError):
    """The repository cannot be reached now, or the disk is full now: nothing is wrong with what was asked."""

    exit_code = EX_TEMPFAIL


@dataclass(frozen=True)
class Settings:
    """Limits on what a repository may cost this device. `reference_time` replaces the clock in checks of expiry."""

    silence_s: float = 30.0  # of a connection, before it is given up
    grace_s: float = 30.0  # after which a download must keep up least_bytes_per_s on average
    least_bytes_per_s: int = 256
    chunk_bytes: int = 1 << 16
    root_rotations_max: int = 64
    root_max_bytes: int = 512_000
    timestamp_max_bytes: int = 16_384
    snapshot_max_bytes: int = 2_000_000
    targets_max_bytes: int = 5_000_000
    free_bytes_kept: int = 8 << 20  # of the store's disk, for telemetry and logs
    reference_time: Optional[datetime] = None
