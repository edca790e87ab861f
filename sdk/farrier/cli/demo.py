from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
    summary = run(settings, say=_say, done=_print_json if as_json else _print_tables)
    return 0 if summary.settled and not summary.errors else 1


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_json(summary: Summary) -> None:
    click.echo(json.dumps(summary.to_document(), indent=2))


def _print_tables(summary: Summary) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    before, after = summary.optimization.baseline, summary.optimization.delivered
    model = Table("model", "accuracy", "size", "p50 latency", title="The model", title_justify="left")
    for label, entry in (("before", before), ("after", after)):
        latency = f"{entry.latency.p50_ms * 1000:.1f} µs" if entry.latency else "-"
        model.add_row(
            f"{label} ({entry.name})", f"{entry.metric or 0:.2%}", _kilobytes(entry.size_bytes), latency
        )
    console.print(model)
    fleet = Table("device", "requests", "errors", "accuracy there", title="The fleet", title_justify="left")
    for device in summary.devices:
        fleet.add_row(device.device, f"{device.requests:,}", str(device.errors), f"{device.accuracy:.2%}")
    console.print(fleet)
    verdict = "balanced" if summary.settled else "NOT balanced"
    console.print(
        f"telemetry: {summary.received:,} samples stored + {summary.ledgered} in the loss ledger"
        f" = {summary.produced:,} produced: {verdict} ({summary.duplicates} came twice, stored once)"
    )
    click.echo(f"report:    {summary.optimization.out / 'report.html'}")
    click.echo(f"dashboard: {summary.dashboard}")


def _kilobytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1000:.1f} kB"
