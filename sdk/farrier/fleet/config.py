"""FLEET.toml: where a fleet's broker, store and repository are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.files import undone_when_full, write_atomically
from farrier_contracts.wire.topics import checked_id

from ..collector import Broker, parse_broker
from ..store import Store, open_store

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FILE_NAME = "FLEET.toml"
FILE_MAX_BYTES = 64 << 10
ROOT_MAX_BYTES = 1 << 20
STORE_URL = "sqlite:///fleet.db"
ROOT_NAME = "root.json"


@dataclass(frozen=True)
class Fleet:
    """One fleet as its file describes it; `folder` is what relative paths in it start from."""

    name: str
    folder: Path
    broker: Broker
    store_url: str
    repository_url: str
    root: Path

    def open_store(self) -> Store:
        """Open the fleet's store."""
        return open_store(self.store_url, base=self.folder)


def load_fleet(path: Path) -> Fleet:
    """Read and check a fleet's file; raises InputError."""
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise InputError(f"{path} is too large for a fleet's file")
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"there is no fleet's file {path}; make one with `farrier fleet init`") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the fleet's file {path} cannot be read: {error}") from None
    folder = path.parent
    try:
        return Fleet(
            name=checked_id(document.get("name", ""), "the fleet's name"),
            folder=folder,
            broker=parse_broker(_text(document, "broker", "url")),
            store_url=_text(document, "store", "url"),
            repository_url=_text(document, "repository", "url"),
            root=folder / _text(document, "repository", "root"),
        )
    except (InputError, UsageError) as error:
        raise InputError(f"the fleet's file {path} is wrong: {error}") from None


def init_fleet(folder: Path, *, name: str, broker: str, repository: str, root: Path) -> Path:
    """Make a folder with FLEET.toml and a copy of the repository's root of trust; return the file's path.

    `repository` is the URL that devices fetch from. Raises UsageError for an address that is not understood,
    InputError where there is a fleet already or `root` is no root of trust, FarrierError where the disk is full.
    """
    import tomli_w

    checked_id(name, "the fleet's name")
    parse_broker(broker)
    _check_repository(repository)
    path = folder / FILE_NAME
    if path.exists():
        raise InputError(f"{path} is there already; change it by hand or choose another folder")
    trusted = _root_of_trust(root)
    document = {
        "name": name,
        "broker": {"url": broker},
        "store": {"url": STORE_URL},
        "repository": {"url": repository, "root": ROOT_NAME},
    }
    kept = folder / ROOT_NAME
    made = [each for each in (kept, path) if not each.exists()]
    with _gone_when_empty(folder), undone_when_full(folder, made):
        write_atomically(kept, [trusted])
        # the broker's address may hold a password
        write_atomically(path, [tomli_w.dumps(document).encode()], mode=0o600)
    return path


def _check_repository(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"the repository {url!r:.200} is not understood; write http://host:8788")


def _root_of_trust(path: Path) -> bytes:
    content, kind = b"", ""
    try:
        with path.open("rb") as file:
            content = file.read(ROOT_MAX_BYTES)
        kind = json.loads(content)["signed"]["_type"]
    except FileNotFoundError:
        raise InputError(
            f"there is no root of trust at {path}; `farrier repo init` says where it made one"
        ) from None
    except (OSError, ValueError, LookupError, TypeError):
        pass  # said below
    if kind != "root":
        raise InputError(f"{path} is no root of trust; give the repository's public/metadata/1.root.json")
    return content


@contextmanager
def _gone_when_empty(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _text(document: dict[str, Any], table: str, key: str) -> str:
    value = document.get(table)
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str) or not text:
        raise InputError(f"it needs a text {key!r} in [{table}]")
    return text
