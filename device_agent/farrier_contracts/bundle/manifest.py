"""The manifest: what a bundle holds, what it needs, and how it must behave.

It is one JSON object in one canonical byte form (sorted keys, no spaces, UTF-8), so that its SHA-256 is the
bundle's identity. A reader refuses a manifest whose `critical` list names a field that it does not know, and
keeps every other unknown field, at the top and in each section (`unknown`), to write it back. Tensors are
described as the Open Inference Protocol does, and by nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Tuple

from ..errors import BundleError
from ..tensors import TensorSpec
from . import fields

SCHEMA = 1
MANIFEST_MAX_BYTES = 4 << 20


def _unknown() -> Any:
    return field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Part:
    """One file inside a bundle, known by the digest of its bytes. `size` is in bytes."""

    sha256: str
    size: int
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class Artifact:
    """A compiled model: the part that holds it, and the engine that runs it."""

    part: str
    format: str
    engine: str
    precision: str
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class Golden:
    """Inputs with the outputs that the artifact must give: |got - want| <= atol + rtol * |want|, per output.

    The part is an .npz with arrays `in.NAME` and `out.NAME`; their first axis counts the cases.
    """

    part: str
    atol: Mapping[str, float]
    rtol: float = 0.0
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class BatchPoint:
    """One measured point of the batch profile: time in milliseconds for a whole batch."""

    batch: int
    latency_ms: float
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class Batching:
    """How requests may be put together along axis 0; `max_batch` 1 means one at a time."""

    max_batch: int = 1
    profile: Tuple[BatchPoint, ...] = ()
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class Cache:
    """Whether equal requests may share one answer."""

    responses: bool = True
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class Compatibility:
    """What a device must have. `engines` maps an engine to its lowest version; memory was measured."""

    arch: Tuple[str, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    accelerators: Tuple[str, ...] = ()
    unknown: Mapping[str, Any] = _unknown()


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know about a bundle before it runs it."""

    name: str
    version: str
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    artifacts: Tuple[Artifact, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)
    golden: Golden | None = None
    warmup: str | None = None
    batching: Batching = Batching()
    cache: Cache = Cache()
    compatibility: Compatibility = Compatibility()
    recipe_lock: str | None = None
    licence: str = ""
    critical: Tuple[str, ...] = ("artifacts", "compatibility", "parts")
    unknown: Mapping[str, Any] = _unknown()

    def to_bytes(self) -> bytes:
        """Return the canonical bytes; their SHA-256 is the bundle's identity."""
        document = fields.to_document(self, SCHEMA)
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()

    @property
    def digest(self) -> str:
        """The bundle's identity: SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @staticmethod
    def from_bytes(data: bytes, *, source: str = "manifest.json") -> Manifest:
        """Read a manifest; raises BundleError whose sentence starts with `source`."""
        if len(data) > MANIFEST_MAX_BYTES:
            raise BundleError(f"{source} is larger than {MANIFEST_MAX_BYTES} bytes, which no manifest is")
        try:
            document = json.loads(data.decode())
        except (ValueError, RecursionError):
            raise BundleError(f"{source} is not a manifest: it is not JSON") from None
        try:
            manifest = fields.from_document(document, SCHEMA)
        except BundleError as error:
            raise BundleError(f"{source}: {error}") from None
        try:
            canonical = manifest.to_bytes()
        except (ValueError, RecursionError):  # what JSON cannot hold: NaN, half a surrogate pair
            canonical = b""
        if canonical != data:
            raise BundleError(f"{source} is not in canonical form: build the bundle again")
        return manifest


def describe(manifest: Manifest) -> Dict[str, Any]:
    """Return the manifest as a plain document, for people and for JSON output."""
    return fields.to_document(manifest, SCHEMA)
