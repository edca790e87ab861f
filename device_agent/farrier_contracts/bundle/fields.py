"""How a manifest becomes a JSON document and back: every field checked, sizes bounded, unknown ones kept."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Dict, Mapping, Tuple

from ..errors import BundleError, InputError
from ..tensors import TensorSpec
from . import names

if TYPE_CHECKING:
    from .manifest import Manifest

MAX_ITEMS = 4096  # entries of any list or table in a manifest
BUNDLE_MAX_BYTES = (1 << 32) - (1 << 20)  # of a whole bundle: a zip file without zip64
KNOWN = (
    "farrier",
    "artifacts",
    "batching",
    "cache",
    "compatibility",
    "critical",
    "golden",
    "inputs",
    "licence",
    "name",
    "outputs",
    "parts",
    "recipe_lock",
    "version",
    "warmup",
)


def to_document(manifest: Manifest, schema: int) -> Dict[str, Any]:
    """Return the manifest as JSON-ready data, unknown fields included."""
    golden = manifest.golden
    return {
        **manifest.unknown,
        "farrier": schema,
        "critical": list(manifest.critical),
        "name": manifest.name,
        "version": manifest.version,
        "inputs": [tensor.to_dict() for tensor in manifest.inputs],
        "outputs": [tensor.to_dict() for tensor in manifest.outputs],
        "artifacts": [{**_flat(a), "options": dict(a.options)} for a in manifest.artifacts],
        "parts": {name: _flat(part) for name, part in manifest.parts.items()},
        "golden": golden and {**_flat(golden), "atol": dict(golden.atol)},
        "warmup": manifest.warmup,
        "batching": {
            **_flat(manifest.batching),
            "profile": [_flat(point) for point in manifest.batching.profile],
        },
        "cache": _flat(manifest.cache),
        "compatibility": {
            **_flat(manifest.compatibility),
            "arch": list(manifest.compatibility.arch),
            "engines": dict(manifest.compatibility.engines),
            "accelerators": list(manifest.compatibility.accelerators),
        },
        "recipe_lock": manifest.recipe_lock,
        "licence": manifest.licence,
    }


def from_document(document: Any, schema: int) -> Manifest:
    """Check a document and make a Manifest of it; raises BundleError."""
    from .manifest import Manifest  # the two modules describe one thing: data there, its document form here

    top = _table(document, "the manifest")
    if top.get("farrier") != schema:
        raise BundleError(
            f"the manifest has schema {top.get('farrier')!r}, this Farrier reads {schema}: update Farrier"
        )
    critical = tuple(_text(item, "critical") for item in _list(top.get("critical", []), "critical"))
    unknown_critical = sorted(set(critical) - set(KNOWN))
    if unknown_critical:
        raise BundleError(
            f"the bundle needs {unknown_critical[0]!r}, unknown to this version: update Farrier"
        )
    parts = {names.part(name): _part(part, name) for name, part in _table(top.get("parts"), "parts").items()}
    if sum(part.size for part in parts.values()) > BUNDLE_MAX_BYTES:
        raise BundleError(f"the parts are larger than {BUNDLE_MAX_BYTES} bytes together, which no bundle is")
    manifest = Manifest(
        name=names.bundle(top.get("name")),
        version=names.version(top.get("version")),
        inputs=_tensors(top.get("inputs"), "inputs"),
        outputs=_tensors(top.get("outputs"), "outputs"),
        artifacts=tuple(_artifact(item, parts) for item in _list(top.get("artifacts"), "artifacts")),
        parts=parts,
        golden=_golden(top.get("golden"), parts),
        warmup=_reference(top.get("warmup"), "warmup", parts),
        batching=_batching(_table(top.get("batching"), "batching")),
        cache=_cache(_table(top.get("cache"), "cache")),
        compatibility=_compatibility(_table(top.get("compatibility"), "compatibility")),
        recipe_lock=_reference(top.get("recipe_lock"), "recipe_lock", parts),
        licence=_text(top.get("licence", ""), "licence"),
        critical=critical,
        unknown={key: value for key, value in top.items() if key not in KNOWN},
    )
    if not manifest.artifacts:
        raise BundleError("the bundle holds no artifact")
    return manifest


def _artifact(item: Any, parts: Mapping[str, Any]) -> Any:
    from .manifest import Artifact

    table = _table(item, "an artifact")
    return Artifact(
        part=_required(table.get("part"), "artifact part", parts),
        format=_text(table.get("format"), "artifact format"),
        engine=_text(table.get("engine"), "artifact engine"),
        precision=_text(table.get("precision"), "artifact precision"),
        target=_text(table.get("target"), "artifact target"),
        options=_table(table.get("options", {}), "artifact options"),
        unknown=_unknown(table, Artifact),
    )


def _part(item: Any, name: str) -> Any:
    from .manifest import Part

    table = _table(item, f"part {name!r}")
    return Part(
        sha256=names.digest(table.get("sha256"), name),
        size=_count(table.get("size"), f"size of {name!r}"),
        unknown=_unknown(table, Part),
    )


def _golden(item: Any, parts: Mapping[str, Any]) -> Any:
    from .manifest import Golden

    if item is None:
        return None
    table = _table(item, "golden")
    atol = {
        _text(k, "golden output"): _number(v, "golden atol")
        for k, v in _table(table.get("atol"), "atol").items()
    }
    return Golden(
        part=_required(table.get("part"), "golden part", parts),
        atol=atol,
        rtol=_number(table.get("rtol", 0), "rtol"),
        unknown=_unknown(table, Golden),
    )


def _batching(table: Dict[str, Any]) -> Any:
    from .manifest import Batching, BatchPoint

    profile = tuple(
        BatchPoint(
            batch=_count(p.get("batch"), "batch"),
            latency_ms=_number(p.get("latency_ms"), "latency_ms"),
            unknown=_unknown(p, BatchPoint),
        )
        for p in (_table(item, "a batch point") for item in _list(table.get("profile", []), "profile"))
    )
    max_batch = max(1, _count(table.get("max_batch", 1), "max_batch"))
    return Batching(max_batch, profile, _unknown(table, Batching))


def _cache(table: Dict[str, Any]) -> Any:
    from .manifest import Cache

    responses = table.get("responses", True)
    if not isinstance(responses, bool):
        raise BundleError("cache.responses must be true or false")
    return Cache(responses, _unknown(table, Cache))


def _compatibility(table: Dict[str, Any]) -> Any:
    from .manifest import Compatibility

    engines = _table(table.get("engines", {}), "engines")
    return Compatibility(
        arch=tuple(_text(item, "arch") for item in _list(table.get("arch", []), "arch")),
        engines={_text(k, "engine"): _text(v, "engine version") for k, v in engines.items()},
        memory_bytes=_count(table.get("memory_bytes", 0), "memory_bytes"),
        accelerators=tuple(
            _text(item, "accelerator") for item in _list(table.get("accelerators", []), "accelerators")
        ),
        unknown=_unknown(table, Compatibility),
    )


def _flat(section: Any) -> Dict[str, Any]:
    own = dict(vars(section))
    return {**own.pop("unknown"), **own}


def _unknown(table: Mapping[str, Any], section: type) -> Dict[str, Any]:
    known = {field.name for field in dataclasses.fields(section)} - {"unknown"}
    return {key: value for key, value in table.items() if key not in known}


def _tensors(value: Any, what: str) -> Tuple[TensorSpec, ...]:
    try:
        tensors = tuple(TensorSpec.from_dict(item) for item in _list(value, what))
    except InputError as error:
        raise BundleError(f"{what}: {error}") from None
    if [tensor.to_dict() for tensor in tensors] != value:
        raise BundleError(f"{what}: a tensor has a field unknown to this version: update Farrier")
    return tensors


def _reference(value: Any, what: str, parts: Mapping[str, Any]) -> str | None:
    return None if value is None else _required(value, what, parts)


def _required(value: Any, what: str, parts: Mapping[str, Any]) -> str:
    if not isinstance(value, str) or value not in parts:
        raise BundleError(f"{what} names {value!r}, which is not a part of the bundle")
    return value


def _table(value: Any, what: str) -> Dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise BundleError(f"{what} must be an object of at most {MAX_ITEMS} fields")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise BundleError(f"{what} must be a list of at most {MAX_ITEMS} items")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise BundleError(f"{what} must be a short text")
    return value


def _count(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise BundleError(f"{what} must be a whole number of at least 0")
    return value


def _number(value: Any, what: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise BundleError(f"{what} must be a finite number of at least 0")
    return value
