"""What should run, on disk, so that a device boots without a network: STATE/deployments.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterable, Optional, Tuple

from farrier_contracts.files import write_atomically

from .slots import Build, Rejected, Release, Slot

FILE_MAX_BYTES = 1 << 20


def save(path: Path, *, version: int, slots: Iterable[Slot]) -> None:
    """Write the version of the desired state and the slots; raises OSError."""
    document = {"version": version, "slots": [_slot(slot) for slot in slots if slot.wanted]}
    write_atomically(path, [json.dumps(document).encode()])


def load(path: Path) -> Tuple[int, Dict[str, Slot]]:
    """Return what was saved last, (-1, {}) where there is nothing or nothing readable."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(FILE_MAX_BYTES))
        slots = {item["name"]: _read_slot(item) for item in document["slots"]}
        return int(document["version"]), slots
    except (OSError, ValueError, KeyError, TypeError):
        return -1, {}


def _slot(slot: Slot) -> Dict[str, Any]:
    return {
        "name": slot.name,
        "wanted": slot.wanted and vars(slot.wanted),
        "good": _build(slot.good),
        "previous": _build(slot.previous),
        "rejected": slot.rejected and {**vars(slot.rejected.release), "reason": slot.rejected.reason},
    }


def _build(build: Optional[Build]) -> Optional[Dict[str, Any]]:
    return build and {**vars(build.release), "digest": build.digest}


def _read_slot(item: Dict[str, Any]) -> Slot:
    rejected = item["rejected"]
    return Slot(
        str(item["name"]),
        wanted=_read_release(item["wanted"]),
        good=_read_build(item["good"]),
        previous=_read_build(item["previous"]),
        rejected=Rejected(_read_release(rejected), str(rejected["reason"])) if rejected else None,
    )


def _read_release(item: Dict[str, Any]) -> Release:
    return Release(str(item["bundle"]), str(item["version"]), int(item["port"]))


def _read_build(item: Optional[Dict[str, Any]]) -> Optional[Build]:
    return Build(_read_release(item), str(item["digest"])) if item else None
