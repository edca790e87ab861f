"""The fleet's file read, and the agent's configuration made of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farrier_contracts.errors import FarrierError, InputError, UsageError
from farrier_contracts.wire import topics

from ..collect import Broker, parse_broker
from . import unit
from .plan import Plan

FILE_MAX_BYTES = 1 << 20
PASSWORD = "broker.password"  # the name of its file on the device
CREDENTIALS_SINCE = 247  # the systemd version that brought LoadCredential
_LOOPBACK = ("localhost", "::1")


@dataclass(frozen=True)
class Fleet:
    """What an agent must know of its fleet. `root` is the repository's root of trust, a file here."""

    name: str
    broker: Broker
    repository_url: str
    root: Path

    def check_reachable(self) -> None:
        """Raise InputError where an address means this machine and would mean the device itself over there."""
        for what, url in (("broker", str(self.broker)), ("repository", self.repository_url)):
            host = urlsplit(url).hostname
            if host is None:
                raise InputError(
                    f"the fleet's {what} {url} is a folder here; a device needs an address (http://...)"
                )
            if host in _LOOPBACK or host.startswith("127."):
                raise InputError(
                    f"the fleet's {what} is at {host}, which on the device is the device itself; "
                    "write this machine's address into the fleet's file"
                )


def read_fleet(path: Path) -> Fleet:
    """Read FLEET.toml; raises InputError with one sentence that starts with the file's name."""
    try:
        return _fleet(_toml(path), path.resolve().parent)
    except (InputError, UsageError) as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _fleet(table: dict[str, Any], folder: Path) -> Fleet:
    broker, repository = _table(table, "broker"), _table(table, "repository")
    place = _text(repository, "repository", "url")
    root = folder / _text(repository, "repository", "root")
    if not root.is_file() or root.stat().st_size > FILE_MAX_BYTES:
        raise InputError(
            f"repository.root names {root}, which is no root of trust; farrier repo init makes one"
        )
    return Fleet(
        name=topics.checked_id(table.get("name", ""), "the fleet's name"),
        broker=parse_broker(_text(broker, "broker", "url")),
        repository_url=place if "://" in place else str(folder / place),
        root=root,
    )


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    if path.stat().st_size > FILE_MAX_BYTES:
        raise InputError("it is too large for a fleet's file")
    try:
        return tomllib.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not TOML: {error}") from None


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key)
    if not isinstance(value, dict):
        raise InputError(f"the table [{key}] is missing")
    return value


def _text(table: dict[str, Any], where: str, key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}.{key} must be a text")
    return value


@dataclass(frozen=True)
class DeviceFile:
    """One file for the device: path below the prefix, content and mode."""

    path: str
    content: bytes
    mode: int


def device_files(fleet: Fleet, plan: Plan) -> list[DeviceFile]:
    """Return the files of PREFIX/etc: agent.toml, the root of trust, and the broker's password where it has one.

    A plain agent runs as the files' owner. Under systemd its user is made up at start: it may read what is no secret,
    and gets the password through systemd's credentials.
    """
    import tomli_w

    systemd = plan.service == "systemd"
    broker = {"url": str(fleet.broker)}
    secrets = []
    if fleet.broker.user is not None:
        broker["username"] = fleet.broker.user
    if fleet.broker.password is not None:
        if systemd and plan.systemd < CREDENTIALS_SINCE:
            raise FarrierError(
                f"systemd {plan.systemd} on the device cannot hand over the broker's password "
                f"({CREDENTIALS_SINCE} can); use --service plain"
            )
        broker["password_file"] = f"{unit.CREDENTIALS}/{PASSWORD}" if systemd else PASSWORD
        secrets.append(DeviceFile(f"etc/{PASSWORD}", fleet.broker.password.encode(), 0o600))
    table = {
        "device": plan.device,
        "fleet": fleet.name,
        "state_dir": plan.state_dir,
        "broker": broker,
        "repository": {"url": fleet.repository_url, "root": "root.json"},
    }
    return [
        DeviceFile("etc/agent.toml", tomli_w.dumps(table).encode(), 0o644 if systemd else 0o600),
        DeviceFile("etc/root.json", fleet.root.read_bytes(), 0o644),
        *secrets,
    ]
