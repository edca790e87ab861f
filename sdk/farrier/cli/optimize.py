"""`farrier optimize`: a thin command over `farrier.optimize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import UNFOLDED, json_option, print_json
from .progress import progress

if TYPE_CHECKING:
    from rich.console import Console

    from ..optimization.result import Entry, Result


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-t", "--target", default="host", show_default=True, help="What the model will run on.")
@click.option("-d", "--data", type=click.Path(path_type=Path), help="Evaluation rows (.npz), with labels.")
@click.option(
    "--calib", type=click.Path(path_type=Path), help="Calibration rows (.npz); else a split of --data."
)
@click.option(
    "--train", type=click.Path(path_type=Path), help="Rows (.npz) to train on, where that helps (minutes)."
)
@click.option(
    "--prune",
    type=click.Choice(("auto", "always", "never")),
    help="Try smaller networks, taught by the original on --train: where quantizing alone misses the budget (auto).",
)
@click.option("--augment", help="Changes to pictures in training, like crop:4,mirror.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over --train for each of them; 10.")
@click.option(
    "--metric",
    help="accuracy, top5, auc, f1, mae, mse, cosine, perplexity, agreement, likeness or FILE.py:FUNCTION.",
)
@click.option(
    "--max-drop", help="How much worse the metric may get, like 1% (the default; 10% without --data)."
)
@click.option("--max-latency", help="Median time of a run, like 8ms.")
@click.option("--max-size", help="Size of the artifact, like 4MB.")
@click.option("--precision", help="Try only these, like int8,fp16; else what suits target and model.")
@click.option(
    "--engine", help="Try only these, like onnxruntime,litert; else every engine that the target has."
)
@click.option("--recipe", type=click.Path(path_type=Path), help="Try only this recipe's candidates (.toml).")
@click.option("--locked", type=click.Path(path_type=Path), help="Rebuild what a recipe.lock delivered.")
@click.option("--name", help="The bundle's name; the model file's name otherwise.")
@click.option("--version", help="The bundle's version; made from the artifact's digest otherwise.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for unfinished calibration: the same command goes on there after a kill.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
@json_option
def optimize(model: Path, *, as_json: bool, work: Path | None, **options: Any) -> None:
    """Fit MODEL (.onnx, float .tflite, Keras, torch .pt2) to a target within a budget, and write bundle and report."""
    from ..optimization import Settings
    from ..optimization import optimize as run

    said: list[str] = []
    with progress(quiet=as_json, said=said) as report:
        result = run(model, progress=report, settings=Settings(work=work), **options)
    if as_json:
        print_json(result.report)
    else:
        _show(result, said)


def _show(result: Result, said: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    # a file or pipe has no width: whole lines there, folded ones on a terminal
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNFOLDED)
    relative = bool(result.report["metric"]["relative"])
    table = Table(box=None, pad_edge=False)
    for title in ("candidate", result.baseline.metric_name, "change", "p50", "size", "memory"):
        table.add_column(title, justify="left" if title == "candidate" else "right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for entry in result.candidates:
        table.add_row(*_row(entry, relative=relative), style="bold" if entry.kept else None)
    console.print(table)
    console.print()
    _show_predictions(console, result)
    console.print(result.verdict)
    for file, what in (
        (result.bundle, "bundle"),
        (result.artifact, "artifact"),
        (result.out / "report.html", "report"),
        (result.out / "recipe.lock", "lock"),
    ):
        console.print(f"  {what:9} {file}", soft_wrap=True)
    for warning in (w for w in result.warnings if w not in said):
        click.echo(f"note: {warning}", err=True)


def _show_predictions(console: Console, result: Result) -> None:
    """One line per integer candidate: the metric that each arithmetic would score."""
    from rich.table import Table

    from ..report import words

    relative = bool(result.report["metric"]["relative"])
    outlooks = [outlook for outlook in result.report["predictions"] if "failure" not in outlook]
    if outlooks:
        names = [p["arithmetic"] for p in outlooks[0]["arithmetics"]]
        table = Table(box=None, pad_edge=False)
        for title in ("predicted", *names, "saturated", "rows"):
            table.add_column(title, justify="left" if title == "predicted" else "right", no_wrap=True)
        for outlook in outlooks:
            found = outlook["arithmetics"]
            worst = max(p["saturated"] / max(p["pairs"], 1) for p in found)
            table.add_row(
                outlook["candidate"],
                *(words.metric(p["value"], relative=relative) for p in found),
                f"{worst:.2g}" if worst else "none",
                str(outlook["rows"]),
            )
        console.print(table)
        console.print()
    for outlook in result.report["predictions"]:
        if "failure" in outlook:
            click.echo(f"note: {outlook['candidate']} cannot be emulated: {outlook['failure']}", err=True)


def _row(entry: Entry, *, relative: bool) -> tuple[str, ...]:
    from ..report import words

    return (
        entry.name,
        words.metric(entry.metric, relative=relative),
        words.drop(entry.drop, relative=relative),
        words.milliseconds(entry.latency.p50_ms if entry.latency else None),
        words.size(entry.size_bytes),
        words.size(entry.peak_memory_bytes),
        ("delivered: " if entry.kept else "") + entry.reason,
    )
