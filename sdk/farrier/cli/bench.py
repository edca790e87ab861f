"""`farrier bench`: a thin command over `farrier.bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from farrier_contracts.errors import UsageError

from .options import json_option, print_json
from .progress import progress

if TYPE_CHECKING:
    from ..benchmark import Benchmark


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--batch", help="Batch sizes, like 1,4,8  [default: 1, and 4 and 8 where the batch is free].")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the engine.")
@json_option
def bench(model: Path, *, batch: str | None, threads: int, as_json: bool) -> None:
    """Measure MODEL (.onnx, .tflite or a .farrier bundle) on this machine."""
    from ..benchmark import bench as run

    sizes = _sizes(batch)
    with progress(quiet=as_json) as report:
        result = run(model, batch=sizes, threads=threads, progress=report)
    if as_json:
        print_json(result.to_document())
    else:
        _show(result)


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
