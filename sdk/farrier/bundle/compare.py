"""Looking into one bundle, and finding what an update from one to another would change and ship."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farrier_contracts.bundle import Manifest, describe, read_manifest, verify


@dataclass(frozen=True)
class Difference:
    """What changed between two bundles; `ship_bytes` is what a device that has the old one must download."""

    fields: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    ship_bytes: int

    @property
    def is_empty(self) -> bool:
        """Whether the two are the same bundle."""
        return not (self.fields or self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """Return the form for JSON output."""
        return asdict(self)


def inspect(path: Path) -> dict[str, Any]:
    """Return a bundle's manifest as a document, with its `digest` and the file's `bytes`.

    Every byte is checked first, so that no damaged bundle looks whole; raises BundleError.
    """
    manifest = verify(path)
    return {**describe(manifest), "digest": manifest.digest, "bytes": path.stat().st_size}


def diff(old: Path, new: Path) -> Difference:
    """Compare two bundle files by their manifests; raises BundleError."""
    return between(read_manifest(old), read_manifest(new))


def between(old: Manifest, new: Manifest) -> Difference:
    """Compare two manifests: dotted names of changed fields, names of parts, and bytes to ship."""
    before, after = _flat(describe(old)), _flat(describe(new))
    fields = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    known = {part.sha256 for part in old.parts.values()}
    fresh = {part.sha256: part.size for part in new.parts.values() if part.sha256 not in known}
    shared = old.parts.keys() & new.parts.keys()
    ship_bytes = sum(fresh.values())
    if old.digest != new.digest:
        ship_bytes += len(new.to_bytes())
    return Difference(
        fields=tuple(fields),
        added=tuple(sorted(new.parts.keys() - shared)),
        removed=tuple(sorted(old.parts.keys() - shared)),
        changed=tuple(sorted(name for name in shared if old.parts[name].sha256 != new.parts[name].sha256)),
        ship_bytes=ship_bytes,
    )


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects to dotted keys; the parts have a listing of their own."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if not prefix and key == "parts":
            continue
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
