"""FLEET.toml: where a fleet's broker, store and repository are."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.wire.topics import checked_id

from ..collector import Broker, parse_broker
from ..store import Store, open_store

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FILE_NAME = "FLEET.toml"
FILE_MAX_BYTES = 64 << 10
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

    Raises InputError where there is a fleet already or `root` is missing.
    """
    import tomli_w

    checked_id(name, "the fleet's name")
    parse_broker(broker)
    path = folder / FILE_NAME
    if path.exists():
        raise InputError(f"{path} is there already; change it by hand or choose another folder")
    if not root.is_file():
        raise InputError(f"there is no root of trust at {root}; `farrier repo init` says where it made one")
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "broker": {"url": broker},
        "store": {"url": STORE_URL},
        "repository": {"url": repository, "root": ROOT_NAME},
    }
    if root.resolve() != (folder / ROOT_NAME).resolve():
        shutil.copyfile(root, folder / ROOT_NAME)
    unfinished = path.with_suffix(".new")
    unfinished.touch(mode=0o600)  # the broker's address may hold a password
    unfinished.write_text(tomli_w.dumps(document))
    os.replace(unfinished, path)  # noqa: PTH105
    return path


def _text(document: dict[str, Any], table: str, key: str) -> str:
    value = document.get(table)
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str) or not text:
        raise InputError(f"it needs a text {key!r} in [{table}]")
    return text
