"""What the end-to-end tests share: whole programs, run as their users run them."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MARK = "FARRIER_TEST_RUN"


@pytest.fixture
def marked_environment(tmp_path: Path) -> Iterator[tuple[dict[str, str], Callable[[], list[str]]]]:
    """An environment whose every process can be found again, with temporary files in a folder of its own.

    Yields the environment and a function that lists the command lines of processes still running in it.
    """
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="f-") as scratch:  # short: Unix sockets are made below it
        (tmp_path / "scratch").symlink_to(scratch)
        environment = {**os.environ, MARK: mark, "TMPDIR": scratch}
        yield environment, lambda: _running(f"{MARK}={mark}".encode())
        assert not _running(f"{MARK}={mark}".encode())


def _running(mark: bytes) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:  # a zombie has none
                    found.append(command)
        except OSError:
            continue
    return found
