"""Files on disk that appear whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterable, Iterator

from .errors import FarrierError

_TEMPORARY = ".tmp"


def write_atomically(path: Path, chunks: Iterable[bytes], *, mode: int = 0o666) -> None:
    """Write a file whole or not at all, and see it and its name to the disk; the umask narrows `mode`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove the temporary files of processes that no longer exist."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        owner = leftover.name[: -len(_TEMPORARY)].rpartition(".")[2]
        if owner.isdigit() and not _is_running(int(owner)):
            leftover.unlink(missing_ok=True)


@contextmanager
def undone_when_full(store: Path, written: Iterable[Path]) -> Iterator[None]:
    """Turn a full disk into one sentence, after removing the files `written` by the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        for path in written:
            path.unlink(missing_ok=True)
        raise FarrierError(f"the disk that holds {store} is full: free some space and try again") from None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder; the file itself was synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
