"""Bundles: what a device may run, in one file."""

from __future__ import annotations

from .container import build, read_manifest, verify
from .manifest import (
    Artifact,
    Batching,
    BatchPoint,
    Cache,
    Compatibility,
    Golden,
    Manifest,
    Part,
    describe,
)
from .store import StoredBundle, load, unpack

__all__ = [
    "Artifact",
    "BatchPoint",
    "Batching",
    "Cache",
    "Compatibility",
    "Golden",
    "Manifest",
    "Part",
    "StoredBundle",
    "build",
    "describe",
    "load",
    "read_manifest",
    "unpack",
    "verify",
]
