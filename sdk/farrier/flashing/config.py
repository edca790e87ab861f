"""The fleet's file read, and the agent's configuration made of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farrier_contracts.errors import InputError
from farrier_contracts.wire import topics

from .plan import Plan

FILE_MAX_BYTES = 1 << 20
BROKER_PORTS = {"mqtt": 1883, "mqtts": 8883}
# The broker's settings that are texts, and those that name files of this machine which the device needs too.
_BROKER_TEXTS = ("username",)
_BROKER_FILES = ("password_file", "ca", "certificate", "key")
_LOOPBACK = ("localhost", "::1")


@dataclass(frozen=True)
class Fleet:
    """What an agent must know of its fleet. `files` are copied to the device: setting -> path here."""

    name: str
    broker_url: str
    broker: dict[str, str]
    files: dict[str, Path]
    repository_url: str
    root: Path

    @property
    def broker_address(self) -> tuple[str, int]:
        """Host and port of the broker."""
        parts = urlsplit(self.broker_url)
        return parts.hostname or "", parts.port or BROKER_PORTS[parts.scheme]

    def check_reachable(self) -> None:
        """Raise InputError where an address means this machine and would mean the device itself over there."""
        for what, url in (("broker", self.broker_url), ("repository", self.repository_url)):
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
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _fleet(table: dict[str, Any], folder: Path) -> Fleet:
    broker, repository = _table(table, "broker"), _table(table, "repository")
    url = _text(broker, "broker", "url")
    if urlsplit(url).scheme not in BROKER_PORTS or not urlsplit(url).hostname:
        raise InputError(f"broker.url must look like mqtt://host:1883 or mqtts://host:8883, not {url!r:.120}")
    place = _text(repository, "repository", "url")
    root = folder / _text(repository, "repository", "root")
    files = {key: folder / _text(broker, "broker", key) for key in _BROKER_FILES if broker.get(key)}
    for file in (root, *files.values()):
        if not file.is_file():
            raise InputError(f"there is no file {file}")
        if file.stat().st_size > FILE_MAX_BYTES:
            raise InputError(f"{file} is larger than {FILE_MAX_BYTES} bytes")
    return Fleet(
        name=topics.checked_id(table.get("name", ""), "the fleet's name"),
        broker_url=url,
        broker={key: _text(broker, "broker", key) for key in _BROKER_TEXTS if broker.get(key)},
        files=files,
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
    """Return the files of PREFIX/etc: agent.toml, the root of trust, and what the broker's settings name.

    The agent's dynamic user under systemd must read them; a plain agent runs as their owner.
    """
    import tomli_w

    mode = 0o644 if plan.service == "systemd" else 0o600
    table = {
        "device": plan.device,
        "fleet": fleet.name,
        "state_dir": plan.state_dir,
        "broker": {"url": fleet.broker_url, **fleet.broker, **{key: f"broker.{key}" for key in fleet.files}},
        "repository": {"url": fleet.repository_url, "root": "root.json"},
    }
    return [
        DeviceFile("etc/agent.toml", tomli_w.dumps(table).encode(), mode),
        DeviceFile("etc/root.json", fleet.root.read_bytes(), 0o644),
        *(DeviceFile(f"etc/broker.{key}", path.read_bytes(), mode) for key, path in fleet.files.items()),
    ]
