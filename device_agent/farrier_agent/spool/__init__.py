"""The telemetry spool: points on disk until the fleet has them, and a ledger of those that had to go."""

from __future__ import annotations

from .spool import Spool
from .stream import StreamSpool

__all__ = ["Spool", "StreamSpool"]
