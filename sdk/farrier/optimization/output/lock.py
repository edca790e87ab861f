"""`recipe.lock`: everything that a rebuild needs in order to give the same bytes, the measured figures included."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from farrier_contracts import __version__
from farrier_contracts.errors import InputError

from ..recipe import read_toml

VERSION = 1
PACKAGES = ("onnx", "onnxruntime", "numpy")
TRAINING_PACKAGES = ("torch",)  # where it is there


@dataclass(frozen=True)
class Lock:
    """The lock's document; sections are read with `lock["delivered"]`."""

    document: Mapping[str, Any]

    def __getitem__(self, section: str) -> Any:
        return self.document[section]

    def to_bytes(self) -> bytes:
        """Return the TOML text; equal locks give equal bytes."""
        return tomli_w.dumps(_without_none(self.document)).encode()


def environment() -> dict[str, str]:
    """Return the versions that decide what a pass writes."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name in TRAINING_PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "farrier": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **versions,
    }


def read(path: Path) -> Lock:
    """Read a lock; raises InputError."""
    document = read_toml(path, "lock")
    if document.get("version") != VERSION:
        raise InputError(
            f"the lock {path} has version {document.get('version')!r}; this Farrier reads {VERSION}"
        )
    wanted = ("environment", "inputs", "budget", "warnings", "delivered", "bundle", "figures", "profile")
    missing = [section for section in wanted if section not in document]
    if missing:
        raise InputError(
            f"the lock {path} has no section {missing[0]!r}; it was not written by farrier optimize"
        )
    return Lock(document)


def require_same(lock: Lock, section: str, found: Mapping[str, Any], *, what: str) -> None:
    """Raise InputError naming the first of `found` that differs from the lock's section."""
    locked = lock[section]
    for key, value in found.items():
        if locked.get(key) != value:
            raise InputError(
                f"{what} {key} differs from the lock ({_short(value)} instead of {_short(locked.get(key))});"
                f"{_versions_differ(lock)} use what was locked, or optimize again without --locked"
            )


def _versions_differ(lock: Lock) -> str:
    here = environment()
    changed = [f"{k} {v} is {here.get(k)} here" for k, v in lock["environment"].items() if here.get(k) != v]
    return f" {', '.join(changed)};" if changed else ""


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]


def _without_none(value: Any) -> Any:
    """Return the document without None, which TOML has not."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
