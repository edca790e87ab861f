"""The worker's settings: one flat JSON object with the limits of the runtime and of the local API."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Dict, Mapping

from farrier_contracts.errors import UsageError

from ..oip.server import ServerSettings
from ..runtime import RuntimeSettings


@dataclass(frozen=True)
class WorkerSettings:
    """Everything that can be set about one worker."""

    runtime: RuntimeSettings
    server: ServerSettings


def parse(text: str) -> WorkerSettings:
    """Read the settings; raises UsageError that names the wrong one."""
    try:
        document = json.loads(text)
    except ValueError:
        raise UsageError("the worker's settings are not JSON") from None
    if not isinstance(document, dict):
        raise UsageError("the worker's settings must be a JSON object")
    runtime, server = _known(RuntimeSettings()), _known(ServerSettings())
    for key in document:
        if key not in runtime and key not in server:
            raise UsageError(f"worker setting {key!r} is unknown (known: {', '.join([*runtime, *server])})")
    return WorkerSettings(
        RuntimeSettings(**_values(document, runtime)), ServerSettings(**_values(document, server))
    )


def _known(defaults: Any) -> Dict[str, Any]:
    return {field.name: getattr(defaults, field.name) for field in fields(defaults)}


def _values(document: Mapping[str, Any], known: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: _number(key, value, known[key]) for key, value in document.items() if key in known}


def _number(key: str, value: Any, default: Any) -> Any:
    kinds = (int,) if isinstance(default, int) else (int, float)
    if type(value) not in kinds or not 0 <= value < 1 << 53:
        raise UsageError(f"worker setting {key} must be a number like {default}, not {value!r:.40}")
    return value
