"""The fleet store's connection: a URL in, a migrated database out, and transactions that are durable when they end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farrier_contracts.errors import FarrierError, InputError, UsageError

from .migrations import migrate

BUSY_TIMEOUT_S = 10.0  # how long to wait for another program's transaction
CACHE_KIB = 16 << 10
SCHEME = "sqlite:///"


class Store:
    """An open fleet store. One thread at a time may use it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        self.connection.close()

    @property
    def identity(self) -> str:
        """The random name that the store was born with."""
        return self.connection.execute("SELECT id FROM store").fetchone()[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block wrote, on the disk for good, or nothing of it; raises sqlite3.Error."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # a full disk may have ended it already
                self.connection.execute("ROLLBACK")
            raise


def open_store(url: str, *, base: Path = Path(), create: bool = True) -> Store:
    """Open a fleet store, bring its schema up to date and return it.

    `sqlite:///name.db` is relative to `base`, `sqlite:////folder/name.db` is absolute. Raises UsageError for a URL
    that is not understood, InputError where there is no usable store.
    """
    path = store_file(url, base=base)
    made = not path.exists()
    if made and not create:
        raise InputError(
            f"there is no fleet store at {path}; start `farrier collect` first or give another --store"
        )
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise InputError(f"cannot open the fleet store {path}: {error}") from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # an acknowledgement must survive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        migrate(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if made and path.is_file() and path.stat().st_size == 0:
            path.unlink()
        if "full" in str(error):
            raise FarrierError(
                f"the disk is full, the fleet store {path} cannot be opened; free some space"
            ) from None
        raise InputError(f"{path} is not a usable fleet store ({error}); give another --store") from None
    return Store(path, connection)


def store_file(url: str, *, base: Path = Path()) -> Path:
    """Return the file that a store's URL names, there or not.

    Raises UsageError for a URL that is not understood, InputError where there is no folder for it.
    """
    if not url.startswith(SCHEME) or not url[len(SCHEME) :]:
        raise UsageError(
            f"the store {url!r:.200} is not understood; write sqlite:///name.db, or sqlite:////folder/name.db "
            "for an absolute path"
        )
    path = base / url[len(SCHEME) :]
    if not path.parent.is_dir():
        raise InputError(f"the folder of the fleet store, {path.parent}, does not exist; make it first")
    return path
