"""Recipes: which candidates are tried, as TOML that a person can edit."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Target
from farrier_converters import passes
from farrier_converters.search import Candidate, Step

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

VERSION = 1
MAX_BYTES = 1 << 20
ORIGINAL = "original"  # the candidate that is the model as it came


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a small TOML file; raises InputError that names it as `what`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the {what} {path} has more than {MAX_BYTES} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"the {what} {path} does not exist") from None
    except OSError as error:
        raise InputError(f"the {what} {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"the {what} {path} is not TOML: {error}") from None


def read(path: Path, target: Target) -> tuple[Candidate, ...]:
    """Return a recipe's candidates for a target; raises InputError in one sentence."""
    document = read_toml(path, "recipe")
    if document.get("version") != VERSION:
        raise InputError(
            f"the recipe {path} has version {document.get('version')!r}; this Farrier reads {VERSION}"
        )
    items = document.get("candidate")
    if not isinstance(items, list) or not items:
        raise InputError(f"the recipe {path} names no [[candidate]]")
    try:
        candidates = tuple(candidate(item, target) for item in items)
    except InputError as error:
        raise InputError(f"the recipe {path}: {error}") from None
    candidates = tuple(c for c in candidates if c.steps)  # the original model is tried in any case
    if len({c.name for c in candidates} | {ORIGINAL}) <= len(candidates):
        raise InputError(f"the recipe {path} must give each candidate a name of its own")
    return candidates


def candidate(item: Any, target: Target) -> Candidate:
    """Read one [[candidate]] table; raises InputError."""
    if not isinstance(item, dict):
        raise InputError("a candidate is a table")
    name, precision = item.get("name"), item.get("precision")
    if not isinstance(name, str) or not name or not isinstance(precision, str):
        raise InputError("a candidate has a name and a precision")
    toolchain = next((t for t in target.toolchains if item.get("toolchain") in (None, t.compiler)), None)
    if toolchain is None:
        known = ", ".join(t.compiler for t in target.toolchains)
        raise InputError(f"{target.name} has no toolchain {item.get('toolchain')!r}; it has: {known}")
    steps = item.get("pass", [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError(f"the passes of {name!r} are [[candidate.pass]] tables")
    return Candidate(name, precision, toolchain, tuple(_step(step) for step in steps))


def _step(table: dict[str, Any]) -> Step:
    step = Step(str(table.get("name", "")), {k: v for k, v in table.items() if k != "name"})
    options(step)
    return step


def options(step: Step) -> Any:
    """Return the pass's options object for a step; raises InputError for an unknown pass or key."""
    try:
        kind = passes.get(step.name).options
    except UsageError as error:
        raise InputError(str(error)) from None
    known = [field.name for field in dataclasses.fields(kind)]
    wrong = sorted(set(step.options) - set(known))
    if wrong:
        raise InputError(
            f"the pass {step.name!r} has no option {wrong[0]!r}; it has: {', '.join(known) or 'none'}"
        )
    try:
        return kind(**step.options)
    except (TypeError, ValueError) as error:
        raise InputError(f"the pass {step.name!r} does not take these options: {error}") from None


def document(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return candidates as a recipe's document."""
    return {
        "version": VERSION,
        "candidate": [
            {
                "name": c.name,
                "precision": c.precision,
                "toolchain": c.toolchain.compiler,
                "pass": [{"name": step.name, **step.options} for step in c.steps],
            }
            for c in candidates
        ],
    }


def write(path: Path, delivered: Candidate) -> None:
    """Write the recipe that leads to what was delivered; the original model needs none, and has an empty one."""
    path.write_text(tomli_w.dumps(document([delivered])), encoding="utf-8")
