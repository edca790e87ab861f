"""Staircases as JSON files: what was measured once is found again, by engine, version, precision, threads and machine.

Version 1 of the format: the fields of `Staircase`, and `curves` by kind with the fields of `Curve`; numbers that are
keys (widths, positions, weights) are written as strings, as JSON wants them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from farrier_contracts.errors import InputError

from .machine import machine
from .table import Curve, Staircase

FORMAT = "farrier-staircase"
VERSION = 1
DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


@dataclass(frozen=True)
class StoreSettings:
    """Limits on a file, which may come from anywhere."""

    max_bytes: int = 4 << 20
    max_kinds: int = 64
    max_points: int = 4096  # of one map
    max_key: int = 1 << 40  # a width, a number of positions or weights
    max_value: float = 1e12  # nanoseconds, or channels
    max_text: int = 500  # characters of a name


class _Refused(Exception):
    """Why a document is no staircase."""


def to_document(staircase: Staircase) -> dict[str, Any]:
    """Return the form in which a staircase is written."""
    document = {"format": FORMAT, "format_version": VERSION, **asdict(staircase)}
    del document["weight_ns"]  # of a network, not of the target
    return json.loads(json.dumps(document))  # keys become strings


def from_document(document: Any, *, settings: StoreSettings = StoreSettings()) -> Staircase:
    """Return the staircase of a document; raises InputError. Unknown fields are left out."""
    try:
        return _staircase(document, settings)
    except _Refused as reason:
        raise InputError(f"this is no staircase of widths: {reason}") from None


def write(staircase: Staircase, path: Path) -> None:
    """Write a staircase in one step; raises OSError."""
    text = json.dumps(to_document(staircase), indent=1) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, *, settings: StoreSettings = StoreSettings()) -> Staircase:
    """Read a staircase; raises InputError with one sentence."""
    try:
        with path.open("rb") as file:
            content = file.read(settings.max_bytes + 1)
    except FileNotFoundError:
        raise InputError(
            f"there is no staircase at {path}; make one with: farrier bench --staircase -o {path}"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > settings.max_bytes:
        raise InputError(f"{path} is larger than a staircase may be ({settings.max_bytes} bytes)")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not a JSON file, or it is truncated") from None
    try:
        return _staircase(document, settings)
    except _Refused as reason:
        raise InputError(f"{path} is no staircase of widths: {reason}") from None


def folder() -> Path:
    """Return where this user's staircases are kept (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "farrier" / "staircases"


def kept_at(engine: str, precision: str, *, threads: int = 1) -> Path:
    """Return where this machine's staircase of an engine, as it is installed, is kept."""
    try:
        version = importlib.metadata.version(DISTRIBUTIONS.get(engine, engine))
    except importlib.metadata.PackageNotFoundError:
        version = ""
    key = json.dumps([VERSION, engine, version, precision, threads, machine()])
    return folder() / f"{engine}-{precision}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def kept_for(target: str, engine: str, precision: str, *, threads: int = 1) -> Path:
    """Return where the staircase of a target is kept that was measured on a device of its kind."""
    return folder() / target / f"{engine}-{precision}-{threads}.json"


def known_for(target: str, engine: str, precision: str, *, threads: int = 1) -> Staircase | None:
    """Return the staircase that was measured on a device of a target's kind; None as for `known`."""
    try:
        return read(kept_for(target, engine, precision, threads=threads))
    except InputError:
        return None


def known(engine: str, precision: str, *, threads: int = 1) -> Staircase | None:
    """Return this machine's staircase where one was kept; None where there is none, or it is damaged."""
    try:
        return read(kept_at(engine, precision, threads=threads))
    except InputError:
        return None


def obtain(
    engine: str, precision: str, measure: Callable[[], Staircase], *, threads: int = 1, again: bool = False
) -> Staircase:
    """Return this machine's staircase: as it was kept, or measured now and kept where the folder can be written."""
    found = None if again else known(engine, precision, threads=threads)
    if found is not None:
        return found
    found = measure()
    keep(found, kept_at(engine, precision, threads=threads))  # where not, it is measured again next time
    return found


def keep(staircase: Staircase, path: Path) -> bool:
    """Write a staircase where it will be found again, and return whether that could be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(staircase, path)
    except OSError:
        return False
    return True


def _staircase(document: Any, settings: StoreSettings) -> Staircase:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _Refused(f"its format is not {FORMAT!r}")
    if document.get("format_version") != VERSION:
        raise _Refused(f"it has version {document.get('format_version')!r:.40}, and only {VERSION} is known")
    curves = document.get("curves")
    if not isinstance(curves, dict) or len(curves) > settings.max_kinds:
        raise _Refused("its curves are no object, or too many")
    made = {
        _text(kind, settings): Curve(**_fields(Curve, curve, f"curves.{kind:.40}", settings))
        for kind, curve in curves.items()
    }
    values = _fields(Staircase, {k: v for k, v in document.items() if k != "curves"}, "", settings)
    return Staircase(**{**values, "curves": made, "weight_ns": 0.0})


def _fields(kind: type, document: Any, title: str, settings: StoreSettings) -> dict[str, Any]:
    """Return the fields of a dataclass that a document holds, each checked by the annotation it has."""
    if not isinstance(document, dict):
        raise _Refused(f"{title} is no object")
    found = {}
    for field in fields(kind):
        name = f"{title}.{field.name}".strip(".")
        if field.name not in document:
            if field.default is MISSING and field.default_factory is MISSING:
                raise _Refused(f"it lacks {name}")
            continue
        value = document[field.name]
        if field.type == "str":
            found[field.name] = _text(value, settings)
        elif field.type == "int":
            found[field.name] = int(_number(value, name, settings))
        elif field.type == "float":
            found[field.name] = _number(value, name, settings)
        else:
            found[field.name] = _numbers(value, name, settings)
    return found


def _text(value: Any, settings: StoreSettings) -> str:
    if not isinstance(value, str) or len(value) > settings.max_text:
        raise _Refused(f"a name in it is no text of at most {settings.max_text} characters")
    return value


def _number(value: Any, name: str, settings: StoreSettings) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Refused(f"{name} is no number")
    if not 0 <= value <= settings.max_value:
        raise _Refused(f"{name} is not between 0 and {settings.max_value:g}")
    return float(value)


def _numbers(value: Any, name: str, settings: StoreSettings) -> Mapping[int, float]:
    if not isinstance(value, dict) or len(value) > settings.max_points:
        raise _Refused(f"{name} is no object, or has more than {settings.max_points} entries")
    found = {}
    for key, number in value.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 13 and 0 < int(key) <= settings.max_key):
            raise _Refused(f"{key!r:.40} in {name} is no count")
        found[int(key)] = _number(number, f"{name}.{key}", settings)
    return found
