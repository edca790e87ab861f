from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .progress import progress

if TYPE_CHECKING:
    from ..showcase import Summary


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--devices", default=3, show_default=True, help="How many agents to start.")
@click.option("--seconds", default=20.0, show_default=True, help="How long to send requests.")
@click.option("--port", default=8787, show_default=True, help="The dashboard's port.")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("farrier-demo"),
    show_default=True,
    help="Folder for the optimized model and its report.",
)
def demo(devices: int, seconds: float, port: int, keep: bool, as_json: bool, out: Path) -> int:
    """Run the whole loop on this machine.

    Optimizes a small network, signs and publishes it, starts a broker, a collector, a dashboard and agents, rolls
    the model out to them, sends real requests, and prints what arrived. Nothing is left running afterwards.
    """
    from ..showcase import Settings
    from ..showcase import demo as run

    settings = Settings(devices=devices, seconds=seconds, port=port, keep=keep, out=out)
    bar = partial(progress, quiet=not sys.stderr.isatty())  # elsewhere the line of each step is enough
    summary = run(settings, say=_say, done=_print_json if as_json else _print_tables, bar=bar)
    return 0 if summary.settled and not summary.errors else 1


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_json(summary: Summary) -> None:
    click.echo(json.dumps(summary.to_document(), indent=2))


def _print_tables(summary: Summary) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..report import words

    console = Console(highlight=False)
    model = Table(box=None, pad_edge=False)
    fleet = Table(box=None, pad_edge=False)
    for table, titles in (
        (model, ("model", "accuracy", "size", "p50")),
        (fleet, ("device", "requests", "errors", "accuracy on it")),
    ):
        for title in titles:
            table.add_column(title, justify="left" if title == titles[0] else "right", min_width=9)
    optimization = summary.optimization
    for label, entry in (("before", optimization.baseline), ("after", optimization.delivered)):
        latency = words.milliseconds(entry.latency.p50_ms if entry.latency else None)
        accuracy = words.metric(entry.metric, relative=False)
        model.add_row(f"{label} ({entry.name})", accuracy, words.size(entry.size_bytes), latency)
    for device in summary.devices:
        fleet.add_row(device.device, f"{device.requests:,}", f"{device.errors:,}", f"{device.accuracy:.2%}")
    for part in ("", model, "", fleet, ""):
        console.print(part)
    console.print(
        f"telemetry  {summary.received:,} samples stored + {summary.ledgered:,} in the loss ledger"
        f" = {summary.produced:,} produced: {'balanced' if summary.settled else 'NOT BALANCED'}",
        soft_wrap=True,
    )
    console.print(f"           {summary.duplicates:,} came twice and were stored once")
    console.print(f"report     {optimization.out / 'report.html'}", soft_wrap=True)
    console.print(
        f"dashboard  {summary.dashboard}{'' if summary.running else '  (ended; --keep leaves it running)'}",
        soft_wrap=True,
    )
