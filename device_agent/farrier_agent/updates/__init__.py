"""Fetch published bundles from a signed repository, in a short-lived process of its own.

The supervisor runs `python -m farrier_agent.updates fetch ...`; tuf and its cryptography are imported there only.
"""

from __future__ import annotations

from .fetch import Fetched, fetch
from .settings import Settings, TryAgain

__all__ = ["Fetched", "Settings", "TryAgain", "fetch"]
