"""The agent's configuration: one TOML file, every field with its unit, unknown keys refused.

    device = "edge-1"
    fleet = "demo"
    state_dir = "/var/lib/farrier"
    [broker]
    url = "mqtt://host:1883"
    [repository]
    url = "http://host:8788"
    root = "/etc/farrier/root.json"

The tables `api`, `telemetry` and `worker` are optional. Relative paths are relative to the file's folder.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple, TypeVar
from urllib.parse import urlsplit

from farrier_contracts.errors import InputError
from farrier_contracts.wire import topics

CONFIG_MAX_BYTES = 1 << 20
BROKER_PORTS = {"mqtt": 1883, "mqtts": 8883}

T = TypeVar("T")


@dataclass(frozen=True)
class Broker:
    """Where telemetry goes: `mqtt://host:port`, or `mqtts://` for TLS; files in PEM."""

    url: str
    username: str = ""
    password_file: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def address(self) -> Tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or BROKER_PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith("mqtts:")


@dataclass(frozen=True)
class Repository:
    """Where bundles come from: the URL or folder of a signed repository, and the root of trust."""

    url: str
    root: str


@dataclass(frozen=True)
class Api:
    """Where deployments listen; `port` is for deployments that ask for none, 0 means any free one."""

    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Telemetry:
    """How often the device measures itself, and how much it keeps while nobody listens."""

    interval_s: float = 1.0
    spool_max_bytes: int = 64 << 20
    batch_points: int = 64
    batch_wait_s: float = 1.0


@dataclass(frozen=True)
class Worker:
    """What one deployment's process may use, and how long it may take."""

    threads: int = 1
    cache_bytes: int = 16 << 20
    start_limit_s: float = 60.0
    build_limit_s: float = 1800.0  # besides, for an engine that has to be built on the device
    drain_limit_s: float = 30.0
    hang_limit_s: float = 10.0


@dataclass(frozen=True)
class Config:
    """Everything that `farrier-agent run` needs to know."""

    device: str
    fleet: str
    state_dir: str
    broker: Broker
    repository: Repository
    api: Api = field(default_factory=Api)
    telemetry: Telemetry = field(default_factory=Telemetry)
    worker: Worker = field(default_factory=Worker)

    @property
    def state(self) -> Path:
        """The folder that outlives the agent."""
        return Path(self.state_dir)


_TABLES = {"broker": Broker, "repository": Repository, "api": Api, "telemetry": Telemetry, "worker": Worker}

# table.key -> smallest and largest value allowed
_RANGES: Mapping[str, Tuple[float, float]] = {
    "api.port": (0, 65535),
    "telemetry.interval_s": (0.05, 86400),
    "telemetry.spool_max_bytes": (64 << 10, 1 << 40),
    "telemetry.batch_points": (1, 1024),
    "telemetry.batch_wait_s": (0, 3600),
    "worker.threads": (1, 1024),
    "worker.cache_bytes": (0, 1 << 40),
    "worker.start_limit_s": (0.1, 3600),
    "worker.build_limit_s": (0, 86400),
    "worker.drain_limit_s": (0, 3600),
    "worker.hang_limit_s": (0.1, 3600),
}


def load(path: Path) -> Config:
    """Read and check a configuration file; raises InputError with one sentence that starts with its path."""
    try:
        if path.stat().st_size > CONFIG_MAX_BYTES:
            raise InputError(f"{path} is larger than {CONFIG_MAX_BYTES} bytes: it is not a configuration")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return parse(_toml(data), folder=path.resolve().parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse(document: Mapping[str, Any], *, folder: Path) -> Config:
    """Make a Config of a TOML document; relative paths become paths under `folder`. Raises InputError."""
    values = dict(document)
    for name, kind in _TABLES.items():
        if name in values:
            values[name] = _record(kind, values[name], where=name)
    config = _record(Config, values, where="")
    topics.checked_id(config.device, "device")
    topics.checked_id(config.fleet, "fleet")
    _check_broker(config.broker)
    _check_host(config.api.host)
    return _with_absolute_paths(config, folder)


def _toml(data: bytes) -> Dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not TOML: {error}") from None


def _record(kind: type[T], table: Any, *, where: str) -> T:
    if not isinstance(table, dict):
        raise InputError(f"{where} must be a table: write [{where}]")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in known:
            raise InputError(f"unknown key {prefix + key!r:.80}{_nearest(key, tuple(known))}")
    for key, each in known.items():
        required = each.default is MISSING and each.default_factory is MISSING
        if required and key not in table:
            raise InputError(f"{prefix + key} is missing{': add it' if each.type == 'str' else ''}")
    return kind(**{key: _value(prefix + key, str(known[key].type), value) for key, value in table.items()})


def _nearest(key: str, known: Tuple[str, ...]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}"


def _value(name: str, kind: str, value: Any) -> Any:
    if kind == "str":
        if not isinstance(value, str):
            raise InputError(f"{name} must be a text, not {value!r:.40}")
        return value
    if kind not in ("int", "float"):
        return value
    if type(value) is not int and not (kind == "float" and type(value) is float):
        raise InputError(f"{name} must be a {'whole ' if kind == 'int' else ''}number, not {value!r:.40}")
    low, high = _RANGES[name]
    if not low <= value <= high:
        raise InputError(f"{name} must be between {low:g} and {high:g}, not {value!r:.40}")
    return float(value) if kind == "float" else value


def _check_broker(broker: Broker) -> None:
    parts = urlsplit(broker.url)
    try:
        port_is_wrong = parts.port == 0
    except ValueError:
        port_is_wrong = True
    if parts.scheme not in BROKER_PORTS or not parts.hostname or port_is_wrong:
        raise InputError(
            f"broker.url must look like mqtt://host:1883 or mqtts://host:8883, not {broker.url!r:.120}"
        )
    if parts.username or parts.password:
        raise InputError("broker.url must not hold a password: use broker.username and broker.password_file")
    if bool(broker.certificate) != bool(broker.key):
        raise InputError("broker.certificate and broker.key belong together: give both or none")


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            raise InputError(f"api.host must be an IP address or localhost, not {host!r:.80}") from None


def _with_absolute_paths(config: Config, folder: Path) -> Config:
    def absolute(value: str) -> str:
        return str(folder / value) if value else value

    broker, repository = config.broker, config.repository
    url = repository.url if "://" in repository.url else absolute(repository.url)
    return replace(
        config,
        state_dir=absolute(config.state_dir),
        broker=replace(
            broker,
            password_file=absolute(broker.password_file),
            ca=absolute(broker.ca),
            certificate=absolute(broker.certificate),
            key=absolute(broker.key),
        ),
        repository=replace(repository, url=url, root=absolute(repository.root)),
    )
