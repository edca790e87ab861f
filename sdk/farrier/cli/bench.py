"""`farrier bench`: a thin command over `farrier.bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farrier_contracts.errors import UsageError

from .options import FILE, UNFOLDED, json_option, print_json, ssh_options
from .progress import progress

if TYPE_CHECKING:
    from farrier_converters.pruning.staircase import Staircase

    from ..benchmark import Benchmark

WIDEST = 128  # channels: how far a staircase is listed


@click.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--batch", help="Batch sizes, like 1,4,8  [default: 1, and 4 and 8 where the batch is free].")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the engine.")
@click.option("--staircase", is_flag=True, help="Instead of a model: which channel counts are fast here.")
@click.option("--engine", help="Of the staircase.  [default: onnxruntime]")
@click.option("--precision", help="Of the staircase: fp32 or int8.  [default: fp32]")
@click.option("--again", is_flag=True, help="Measure the staircase even where it was measured before.")
@click.option("--on", "destination", metavar="USER@HOST", help="Measure the staircase on a flashed device.")
@click.option(
    "-t", "--target", help="What the device is; its table serves this target.  [default: its processor]"
)
@click.option("--prefix", help="Folder of the agent on the device, if it is not the default.")
@ssh_options
@click.option("-o", "--output", type=FILE, help="Write the staircase to this file too.")
@json_option
def bench(
    model: Path | None, *, batch: str | None, threads: int, staircase: bool, as_json: bool, **more: Any
) -> None:
    """Measure MODEL (.onnx, .tflite or a .farrier bundle) on this machine.

    With --staircase no model but the engine itself is measured: its time falls in steps, so that layers of some widths
    take as long as wider ones, or longer. The table takes a minute or two, once, and is kept; pruning chooses widths
    by it. --on measures it on a device that an agent was flashed to, for all that is pruned for its target here.
    """
    if staircase:
        if model is not None or batch is not None:
            raise UsageError("a staircase is measured without a model and at batch 1")
        _staircase(threads, as_json=as_json, **more)
        return
    if any(more.values()):
        _reject(more, "--staircase")
    if model is None:
        raise UsageError("name a model to measure, or ask for --staircase")
    from ..benchmark import bench as run

    sizes = _sizes(batch)
    with progress(quiet=as_json) as report:
        result = run(model, batch=sizes, threads=threads, progress=report)
    if as_json:
        print_json(result.to_document())
    else:
        _show(result)


def _reject(options: dict[str, Any], companion: str) -> None:
    given = next(name for name, value in options.items() if value)
    name = {"destination": "on", "ssh_options": "ssh-option"}.get(given, given.replace("_", "-"))
    raise UsageError(f"--{name} goes with {companion}")


def _staircase(
    threads: int,
    *,
    engine: str | None,
    precision: str | None,
    again: bool,
    output: Path | None,
    as_json: bool,
    destination: str | None,
    target: str | None,
    prefix: str | None,
    **ssh: Any,
) -> None:
    from farrier_converters.pruning.staircase import store

    from .. import staircases

    what = engine or "onnxruntime", precision or "fp32"
    with progress(quiet=as_json) as report:
        if destination is None:
            elsewhere = {"target": target, "prefix": prefix, **ssh}
            if any(elsewhere.values()):
                _reject(elsewhere, "--on")
            found = staircases.staircase(*what, threads=threads, output=output, again=again, progress=report)
        else:
            from ..flashing.ssh import Remote

            options = tuple(ssh.pop("ssh_options"))
            found = staircases.device_staircase(
                Remote(destination, options=options, **ssh), *what, target=target, prefix=prefix or "",
                threads=threads, output=output, progress=report,
            )  # fmt: skip
    if as_json:
        print_json(store.to_document(found))
    else:
        _show_widths(found)


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"batch sizes are written like 1,4,8, not {text!r}") from None


def _show(result: Benchmark) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..report import words

    table = Table(box=None, pad_edge=False)
    for title in ("batch", "p50", "p99", "rows/s", "cpu per row", "memory", "spread"):
        table.add_column(title, justify="right")
    for figures in result.batches:
        latency = figures.latency
        table.add_row(
            str(latency.batch),
            words.milliseconds(latency.p50_ms),
            words.milliseconds(latency.p99_ms),
            f"{latency.throughput:,.0f}",
            words.milliseconds(latency.cpu_us_per_item / 1e3),
            words.size(figures.peak_memory_bytes),
            f"{latency.spread:.0%}",
        )
    console = Console(highlight=False)
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    console.print(f"{result.model} in {result.engine} on {result.machine}, {threads}")
    console.print(table)


def _show_widths(found: Staircase) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("layers", no_wrap=True)
    table.add_column("channels that no larger number costs as little as", overflow="fold")
    for kind in found.curves:
        table.add_row(kind, " ".join(map(str, found.good_widths(kind, WIDEST))))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNFOLDED)
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    console.print(
        f"{found.version or found.engine}, {found.precision}, {threads} on {found.machine}, "
        f"measured {found.measured or 'never'}"
    )
    console.print(table)
