"""What an importer returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..model import Model


@dataclass(frozen=True)
class Imported:
    """A model, what the user should know about how it came about, and the check against its own runtime.

    `check` runs the original and the model on the same noise and returns what differs, in sentences; it takes a second,
    and returns nothing where the runtime is not installed.
    """

    model: Model
    notes: tuple[str, ...]
    check: Callable[[], tuple[str, ...]]
