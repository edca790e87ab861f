"""`farrier compare`: a thin command over `farrier.compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, json_option, print_json
from .progress import progress

if TYPE_CHECKING:
    from rich.console import Console

    from ..comparison import Comparison

UNFOLDED = 200  # characters
SHOWN = 12  # layers with the largest share


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option(
    "-d", "--data", type=click.Path(path_type=Path), required=True, help="Rows (.npz), with labels or not."
)
@click.option(
    "--calib", type=click.Path(path_type=Path), help="Calibration rows for --apply; else a part of --data."
)
@click.option("--metric", help="As for optimize; chosen by the labels otherwise.")
@click.option("--rows", type=int, help="Rows looked at layer by layer  [default: 256].")
@click.option("--apply", "out", type=FILE, help="Quantize A again with the cures, and write it here (.onnx).")
@click.option("--html", type=FILE, help="Write the report as a page, too.")
@json_option
def compare(a: Path, b: Path, *, as_json: bool, **options: Any) -> None:
    """Say where model B (.onnx or bundle) differs from model A on data, layer by layer, why, and what cures it."""
    from ..comparison import compare as run

    with progress(quiet=as_json) as report:
        result = run(a, b, progress=report, **options)
    if as_json:
        print_json(result.to_document())
    else:
        _show(result)


def _show(result: Comparison) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNFOLDED)
    _show_outputs(console, result)
    _show_layers(console, result)
    _show_causes(console, result)
    if result.applied is not None:
        _show_applied(console, result)
    for note in result.notes:
        click.echo(f"note: {note}", err=True)


def _show_outputs(console: Console, result: Comparison) -> None:
    from ..report import words

    judged = result.judged
    a, b = (words.metric(value, relative=judged.relative) for value in (judged.a, judged.b))
    change = words.drop(judged.drop, relative=judged.relative)
    console.print(
        f"{judged.metric}: {a} -> {b} ({'unchanged' if change == '0' else change}) over {result.rows} rows"
    )
    for output in judged.outputs:
        ratio = "whole numbers" if output["snr_db"] is None else _db(output["snr_db"])
        console.print(
            f"output {output['name']}: {ratio}, {output['equal']:.1%} of the elements equal", soft_wrap=True
        )


def _show_layers(console: Console, result: Comparison) -> None:
    from rich.table import Table

    layers = result.report["layers"]
    ranked = sorted(layers, key=lambda layer: -(layer["share"] or 0))[:SHOWN]
    chosen = [layer for layer in layers if layer in ranked]
    table = Table(box=None, pad_edge=False)
    for title in ("layer", "op"):
        table.add_column(title, overflow="fold")
    for title in ("signal/noise", "its own", "share of the loss"):
        table.add_column(title, justify="right")
    for layer in chosen:
        share = "–" if layer["share"] is None else f"{layer['share']:.1%}"
        table.add_row(layer["layer"], layer["op"], _db(layer["snr_db"]), _db(layer["own_snr_db"]), share)
    console.print()
    console.print(table)
    if len(layers) > len(chosen):
        console.print(f"({len(layers) - len(chosen)} more layers have smaller shares; --json lists all)")
    left_out = result.report["left_out"]
    if left_out:
        console.print(f"not looked into, because they hold subgraphs: {', '.join(left_out)}", soft_wrap=True)


def _show_causes(console: Console, result: Comparison) -> None:
    console.print()
    if not result.report["causes"]:
        console.print("no cause stands out: every quantizer fits the data")
    for cause in result.report["causes"]:
        console.print(
            f"{cause['cause']} in {cause['layer']} ({cause['weight']:.0%} of the loss)", style="bold"
        )
        console.print(f"  {cause['why']}", soft_wrap=True)
        console.print(f"  cure: {cause['cure']}", soft_wrap=True)


def _show_applied(console: Console, result: Comparison) -> None:
    from ..report import words

    applied = result.applied
    assert applied is not None
    before, after = applied.before, applied.after
    values = [words.metric(v, relative=before.relative) for v in (before.b, after.b, before.a)]
    console.print()
    console.print(
        f"cured: {before.metric} {values[0]} -> {values[1]} (float: {values[2]}), signal/noise "
        f"{_db(before.snr_db)} -> {_db(after.snr_db)}"
    )
    kept = applied.options["exclude"]
    if kept:
        console.print(f"in float: {', '.join(kept)}", soft_wrap=True)
    console.print(f"  {applied.path}", soft_wrap=True)


def _db(value: float) -> str:
    return "equal" if value >= 150 else f"{value:.1f} dB"
