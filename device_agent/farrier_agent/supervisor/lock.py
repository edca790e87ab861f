"""One agent per state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from farrier_contracts.errors import InputError


def acquire(state: Path) -> int:
    """Make the state folder and lock it for as long as the returned descriptor is open; raises InputError."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(state, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise InputError(f"another agent (process {holder}) already uses {state}: stop it first") from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise _unusable(state, error) from None
    return descriptor


def holder(state: Path) -> int:
    """Return the process that holds the lock of a state folder, 0 where there is none."""
    try:
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 20, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return 0


def _unusable(state: Path, error: OSError) -> InputError:
    return InputError(f"the state folder {state} cannot be used: {error.strerror}")
