"""The Farrier agent: loads bundles, serves inference and reports telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import Answer, Runtime, RuntimeSettings

__all__ = ["Answer", "Runtime", "RuntimeSettings"]


def __getattr__(name: str) -> Any:
    """Import the data plane on use: the supervisor runs without numpy and engines."""
    if name in __all__:
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
