"""The output folder: made beside its place and put there in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farrier_contracts.errors import UsageError

MARKS = ("report.json", "recipe.lock")  # what a former result has


def check(out: Path, marks: Sequence[str] = MARKS) -> None:
    """Raise UsageError unless `out` is absent, empty or a former result, which has the files `marks`."""
    if not out.exists():
        if not out.absolute().parent.is_dir():
            raise UsageError(f"the folder {out.absolute().parent} does not exist; make it first")
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the results")
    if any(out.iterdir()) and not all((out / mark).is_file() for mark in marks):
        raise UsageError(f"{out} is not empty and holds no former result; give another folder")


@contextmanager
def staged(out: Path, marks: Sequence[str] = MARKS) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and vanishes when it does not."""
    check(out, marks)
    out = out.absolute()
    stage = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    stage.mkdir()
    try:
        yield stage
        _put(stage, out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put(stage: Path, out: Path) -> None:
    former = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(former)
    try:
        stage.rename(out)
    except OSError:
        if former.exists():
            former.rename(out)
        raise
    shutil.rmtree(former, ignore_errors=True)
