"""The retained documents of a device: state, birth, reported and desired, as checked frozen data.

Versions of `desired` only grow; a device ignores one that is not larger than what it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Tuple

from ..errors import InputError
from . import telemetry, topics

MAX_DEPLOYMENTS = 32


@dataclass(frozen=True)
class State:
    """Presence. `session` counts connections, so that an old will cannot end a newer session."""

    online: bool
    session: int
    boot: str

    def to_document(self) -> Dict[str, Any]:
        """Return the form on the wire."""
        return {"online": self.online, "session": self.session, "boot": self.boot}

    @staticmethod
    def from_document(document: Any) -> State:
        """Read it back; raises InputError."""
        table = _table(document)
        online, boot = table.get("online"), table.get("boot")
        if type(online) is not bool or not isinstance(boot, str):
            raise InputError("a device's state is wrong")
        return State(online, _number(table, "session"), _text(table, "boot"))


@dataclass(frozen=True)
class WantedDeployment:
    """One deployment that a device should run: a published bundle, under the name requests use."""

    name: str
    bundle: str
    version: str
    port: int = 0

    def to_document(self) -> Dict[str, Any]:
        """Return the form on the wire."""
        return dict(vars(self))


@dataclass(frozen=True)
class Desired:
    """What a device should run. `version` only grows."""

    version: int
    deployments: Tuple[WantedDeployment, ...] = ()

    def to_document(self) -> Dict[str, Any]:
        """Return the form on the wire."""
        return {"version": self.version, "deployments": [d.to_document() for d in self.deployments]}

    @staticmethod
    def from_document(document: Any) -> Desired:
        """Read it back; raises InputError."""
        table = _table(document)
        version, items = _number(table, "version"), table.get("deployments")
        if version < 0 or not isinstance(items, list):
            raise InputError("a desired state needs a version and a list of deployments")
        if len(items) > MAX_DEPLOYMENTS:
            raise InputError(f"a desired state holds more than {MAX_DEPLOYMENTS} deployments")
        wanted = tuple(_wanted(item) for item in items)
        if len({deployment.name for deployment in wanted}) != len(wanted):
            raise InputError("a desired state names a deployment twice")
        return Desired(version, wanted)


@dataclass(frozen=True)
class RunningDeployment:
    """What became of one deployment. `phase` is one of PHASES; `detail` is a sentence where it failed."""

    name: str
    bundle: str
    version: str
    digest: str
    phase: str
    endpoint: str = ""
    detail: str = ""


PHASES = ("fetching", "starting", "live", "failed", "stopped")


@dataclass(frozen=True)
class Reported:
    """What a device does. `desired_version` is the newest desired state that it has acted on."""

    desired_version: int
    deployments: Tuple[RunningDeployment, ...] = ()
    statements: Tuple[telemetry.Statement, ...] = ()
    health: Mapping[str, Any] = field(default_factory=dict)

    def to_document(self) -> Dict[str, Any]:
        """Return the form on the wire."""
        return {
            "desired_version": self.desired_version,
            "deployments": [dict(vars(d)) for d in self.deployments],
            "telemetry": [s.to_document() for s in self.statements],
            "health": dict(self.health),
        }

    @staticmethod
    def from_document(document: Any) -> Reported:
        """Read it back; raises InputError."""
        table = _table(document)
        version = _number(table, "desired_version")
        deployments, statements = table.get("deployments"), table.get("telemetry")
        if not isinstance(deployments, list) or not isinstance(statements, list):
            raise InputError("a reported state is wrong")
        return Reported(
            version,
            tuple(_running(item) for item in deployments[:MAX_DEPLOYMENTS]),
            tuple(telemetry.Statement.from_document(item) for item in statements),
            _table(table.get("health", {})),
        )


def _wanted(item: Any) -> WantedDeployment:
    table = _table(item)
    port = table.get("port", 0)
    if type(port) is not int or not 0 <= port < 1 << 16:
        raise InputError(f"port {port!r} is not a port")
    return WantedDeployment(
        topics.checked_id(table.get("name", ""), "a deployment's name"),
        topics.checked_id(table.get("bundle", ""), "a bundle's name"),
        _text(table, "version"),
        port,
    )


def _running(item: Any) -> RunningDeployment:
    table = _table(item)
    names = ("name", "bundle", "version", "digest", "phase", "endpoint", "detail")
    return RunningDeployment(**{name: _text(table, name) for name in names})


def _number(table: Mapping[str, Any], key: str) -> int:
    value = table.get(key)
    if type(value) is not int or abs(value) >= telemetry.INT_LIMIT:
        raise InputError(f"{key} must be a whole number that 64 bits can hold")
    return value


def _table(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("a document must be an object")
    return value


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or len(value) > 1024:
        raise InputError(f"{key} must be a short text")
    return value
