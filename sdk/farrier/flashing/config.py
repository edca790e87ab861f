"""The agent's configuration, made of the fleet's file and the plan."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from farrier_contracts.errors import FarrierError, InputError

from ..fleet import Fleet
from . import unit
from .plan import Plan

ROOT_MAX_BYTES = 1 << 20
PASSWORD = "broker.password"  # the name of its file on the device
CREDENTIALS_SINCE = 247  # the systemd version that brought LoadCredential
_LOOPBACK = ("localhost", "::1")


def check_fleet(fleet: Fleet) -> None:
    """Raise InputError where the repository's root of trust is not there."""
    if not fleet.root.is_file() or fleet.root.stat().st_size > ROOT_MAX_BYTES:
        raise InputError(f"{fleet.root} is no root of trust; `farrier repo init` says where it made one")


def check_reachable(fleet: Fleet) -> None:
    """Raise InputError where an address means this machine here and the device itself over there."""
    for what, url in (("broker", str(fleet.broker)), ("repository", fleet.repository_url)):
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
        "repository": {"url": _repository(fleet), "root": "root.json"},
    }
    return [
        DeviceFile("etc/agent.toml", tomli_w.dumps(table).encode(), 0o644 if systemd else 0o600),
        DeviceFile("etc/root.json", fleet.root.read_bytes(), 0o644),
        *secrets,
    ]


def _repository(fleet: Fleet) -> str:
    """Return the repository's address; a folder's is relative to the fleet's file."""
    url = fleet.repository_url
    return url if "://" in url else str((fleet.folder / url).resolve())
