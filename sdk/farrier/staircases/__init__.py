"""What widths cost: measured once on this machine, or on a device for its target, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_contracts import targets
from farrier_contracts.errors import FarrierError, InputError, UsageError
from farrier_contracts.targets import Target, Toolchain
from farrier_converters.pruning.staircase import Staircase, default, store

from ..stages import NOTE

if TYPE_CHECKING:
    from farrier_converters.pruning.staircase.measure import MeasureSettings

    from ..flashing.ssh import Remote

MOST_THREADS = 1024
MEASURED_AFAR = (
    "onnxruntime",
    "litert",
)  # engines whose artifacts are files that a workstation makes for a device

Progress = Callable[[str, float], None]


def staircase(
    engine: str = "onnxruntime",
    precision: str = "fp32",
    *,
    threads: int = 1,
    output: str | Path | None = None,
    again: bool = False,
    progress: Progress = lambda stage, share: None,
) -> Staircase:
    """Return this machine's latency staircase of an engine; it takes a minute or two the first time.

    `output` is a file to write it to besides the user's cache; `again` measures even where the cache has one. Raises
    UsageError for an engine or a precision that this machine does not have, InputError where it cannot be measured or
    written.
    """
    from farrier_converters.pruning.staircase.measure import here, measure

    path = _checked(threads, output)
    bench = here(engine, precision)

    def now() -> Staircase:
        return measure(bench, precision, threads=threads, progress=progress)

    found = store.obtain(engine, precision, now, threads=threads, again=again)
    _write(found, path)
    return found


def device_staircase(
    remote: Remote,
    engine: str = "onnxruntime",
    precision: str = "fp32",
    *,
    target: str | None = None,
    prefix: str = "",
    threads: int = 1,
    output: str | Path | None = None,
    settings: MeasureSettings | None = None,
    progress: Progress = lambda stage, share: None,
) -> Staircase:
    """Return the latency staircase of a flashed device's engine, measured there over SSH.

    It is kept as that of `target`, by default the generic one of the device's processor: whatever is pruned for that
    target on this machine goes by it from then on. `prefix` is where the agent was installed; `output` a file to write
    the table to as well; `settings` say how long is measured. Raises UsageError for an engine or precision that the
    target does not have, InputError where the file cannot be written, and FarrierError where the device cannot be
    reached, has no agent or no such engine.
    """
    from farrier_converters.pruning.staircase.measure import MeasureSettings, measure

    from .device import connected

    path = _checked(threads, output)
    board = None if target is None else targets.get(target)
    with connected(remote, board, engine, precision, prefix=prefix) as (bench, found_target):
        settings = settings or MeasureSettings()
        found = measure(bench, precision, threads=threads, settings=settings, progress=progress)
    name = found_target.name
    where = store.kept_for(name, engine, precision, threads=threads)
    kept = store.keep(found, where)
    told = (
        f"kept as the table of {name}"
        if kept
        else f"it cannot be kept in {where.parent}: give it a file with -o"
    )
    progress(NOTE + told, 1.0)
    _write(found, path)
    return found


def staircase_for(
    target: Target,
    toolchain: Toolchain,
    precision: str,
    *,
    measured: bool = True,
    progress: Progress = lambda stage, share: None,
) -> Staircase:
    """Return the staircase to prune by: that of a device of the target, else this machine's where it is like it.

    `measured` allows this machine's to be measured now. What was measured nowhere has the steps that such engines are
    known to have.
    """
    own = targets.host()
    if target.name != own.name:
        found = store.known_for(target.name, toolchain.engine, precision)
        if found is not None:
            return found
    if measured and target.arch in ("any", own.arch) and not toolchain.stand_in:
        try:
            return staircase(toolchain.engine, precision, progress=progress)
        except FarrierError:  # an engine or precision that is not measured
            pass
    return default(toolchain.engine, precision, target.arch)


def _checked(threads: int, output: str | Path | None) -> Path | None:
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads must be 1 to {MOST_THREADS}, not {threads}")
    path = None if output is None else Path(output)
    if path is not None and not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")
    return path


def _write(found: Staircase, path: Path | None) -> None:
    if path is None:
        return
    try:
        store.write(found, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
