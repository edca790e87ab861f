"""What widths cost on this machine: measured once for each engine and precision, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.pruning.staircase import Staircase, store

MOST_THREADS = 1024


def staircase(
    engine: str = "onnxruntime",
    precision: str = "fp32",
    *,
    threads: int = 1,
    output: str | Path | None = None,
    again: bool = False,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Staircase:
    """Return this machine's latency staircase of an engine; it takes a minute or two the first time.

    `output` is a file to write it to besides the user's cache; `again` measures even where the cache has one. Raises
    UsageError for an engine or a precision that this machine does not have, InputError where it cannot be measured or
    written.
    """
    from farrier_converters.pruning.staircase.measure import check, measure

    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads must be 1 to {MOST_THREADS}, not {threads}")
    check(engine, precision)
    path = None if output is None else Path(output)
    if path is not None and not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")

    def now() -> Staircase:
        return measure(engine, precision, threads=threads, progress=progress)

    found = store.obtain(engine, precision, now, threads=threads, again=again)
    if path is not None:
        try:
            store.write(found, path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
    return found
