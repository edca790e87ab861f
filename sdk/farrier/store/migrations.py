"""The fleet store's schema, as numbered migrations: append to the list, never change a line that was released."""

from __future__ import annotations

import sqlite3
import time

# Metric readings are JSON in one column: devices name their own metrics, and a new one must not need a migration.
MIGRATIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        1,
        (
            "CREATE TABLE store (id TEXT NOT NULL)",
            "INSERT INTO store VALUES (lower(hex(randomblob(8))))",
            """CREATE TABLE devices (
                id INTEGER PRIMARY KEY,
                fleet TEXT NOT NULL,
                name TEXT NOT NULL,
                online INTEGER NOT NULL DEFAULT 0,
                session INTEGER NOT NULL DEFAULT 0,
                boot TEXT NOT NULL DEFAULT '',
                seen_ns INTEGER NOT NULL DEFAULT 0,
                birth TEXT,
                reported TEXT,
                UNIQUE (fleet, name)
            )""",
            """CREATE TABLE streams (
                id INTEGER PRIMARY KEY,
                device_id INTEGER NOT NULL REFERENCES devices (id),
                boot TEXT NOT NULL,
                stream TEXT NOT NULL,
                acknowledged INTEGER NOT NULL DEFAULT -1,
                received INTEGER NOT NULL DEFAULT 0,
                duplicates INTEGER NOT NULL DEFAULT 0,
                UNIQUE (device_id, boot, stream)
            )""",
            """CREATE TABLE points (
                stream_id INTEGER NOT NULL REFERENCES streams (id),
                seq INTEGER NOT NULL,
                mono_ns INTEGER NOT NULL,
                wall_ns INTEGER NOT NULL,
                readings TEXT NOT NULL,
                PRIMARY KEY (stream_id, seq)
            ) WITHOUT ROWID""",
            "CREATE INDEX points_by_time ON points (stream_id, wall_ns)",
            """CREATE TABLE statements (
                stream_id INTEGER PRIMARY KEY REFERENCES streams (id),
                produced INTEGER NOT NULL,
                dropped TEXT NOT NULL
            )""",
            """CREATE TABLE desired (
                device_id INTEGER NOT NULL REFERENCES devices (id),
                version INTEGER NOT NULL,
                set_ns INTEGER NOT NULL,
                document TEXT NOT NULL,
                PRIMARY KEY (device_id, version)
            ) WITHOUT ROWID""",
            """CREATE TABLE events (
                id INTEGER PRIMARY KEY,
                device_id INTEGER NOT NULL REFERENCES devices (id),
                kind TEXT NOT NULL,
                wall_ns INTEGER NOT NULL,
                digest TEXT NOT NULL,
                document TEXT NOT NULL,
                UNIQUE (device_id, kind, digest)
            )""",
            "CREATE INDEX events_by_time ON events (device_id, wall_ns)",
        ),
    ),
)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing, in order and in one transaction, and record each number."""
    if applied(connection) >= MIGRATIONS[-1][0]:
        return
    connection.execute("BEGIN IMMEDIATE")  # two programs may open a new store at the same moment
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, applied_ns INTEGER)"
        )
        done = applied(connection)
        for number, statements in MIGRATIONS:
            if number <= done:
                continue
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, time.time_ns()))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def applied(connection: sqlite3.Connection) -> int:
    """Return the number of the newest migration that the store has, 0 for an empty store."""
    table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone()
    if table is None:
        return 0
    return connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0]
