"""Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing within the first second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..stages import NOTE

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_S = 1.0  # no output before this much time has passed

Report = Callable[[str, float], None]  # what is being done, and which share (0 to 1) of it is done


@contextmanager
def progress(*, quiet: bool = False, said: list[str] | None = None) -> Iterator[Report]:
    """Yield a function to report progress with: `report("measuring", 0.4)`.

    A stage that begins with "note: " is printed as it is, at once, and added to `said` (without that beginning).
    """
    said = [] if said is None else said
    if quiet:
        yield lambda stage, share: None
    elif sys.stderr.isatty():
        bar = _Bar(said)
        try:
            yield bar.report
        finally:
            bar.close()
    else:
        yield _Lines(said).report


class _Lines:
    """One line per stage, once a second has passed; of stages that take turns, each is said once."""

    def __init__(self, said: list[str]) -> None:
        self._started = time.monotonic()
        self._told: set[str] = set()
        self._said = said

    def report(self, stage: str, share: float) -> None:
        if stage.startswith(NOTE):
            self._said.append(stage.removeprefix(NOTE))
            click.echo(stage, err=True)
        elif stage not in self._told and time.monotonic() - self._started >= QUIET_S:
            self._told.add(stage)
            click.echo(f"{stage} ...", err=True)


class _Bar:
    """A rich progress bar that appears after a second and leaves nothing behind."""

    def __init__(self, said: list[str]) -> None:
        self._started = time.monotonic()
        self._said = said
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def report(self, stage: str, share: float) -> None:
        if stage.startswith(NOTE):
            self._said.append(stage.removeprefix(NOTE))
            click.echo(stage, err=True) if self._bar is None else self._bar.console.print(stage, markup=False)
            return
        if self._bar is None:
            if time.monotonic() - self._started < QUIET_S:
                return
            self._bar = self._open()
            self._task = self._bar.add_task(stage, total=1.0)
        if self._task is not None:
            self._bar.update(self._task, description=stage, completed=min(max(share, 0.0), 1.0))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    @staticmethod
    def _open() -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        bar.start()
        return bar
