"""What becomes of each deployment: a pure state machine."""

from __future__ import annotations

from .model import (
    Action,
    Build,
    Drain,
    Event,
    Fetch,
    Fetched,
    FetchFailed,
    Gone,
    Hung,
    Kill,
    Limits,
    Ready,
    Rejected,
    Release,
    Remember,
    Serve,
    Serving,
    Slot,
    Start,
    Tell,
    Tick,
    Want,
)
from .report import deadline, finished, report
from .rules import step

__all__ = [
    "Action",
    "Build",
    "Drain",
    "Event",
    "Fetch",
    "FetchFailed",
    "Fetched",
    "Gone",
    "Hung",
    "Kill",
    "Limits",
    "Ready",
    "Rejected",
    "Release",
    "Remember",
    "Serve",
    "Serving",
    "Slot",
    "Start",
    "Tell",
    "Tick",
    "Want",
    "deadline",
    "finished",
    "report",
    "step",
]
