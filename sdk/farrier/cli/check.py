"""`farrier check`: a thin command over `farrier.check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FOLDER, UNFOLDED, json_option, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from ..checking import Check

DOUBT = "maybe: "
NAME = 40  # characters of an operator's name that the table shows


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-t", "--target", default="host", show_default=True, help="What the model will run on.")
@click.option(
    "--toolchain", help="Which of the target's, by its compiler; else the one that accelerates most."
)
@click.option(
    "--min-accelerated", help="Exit 3 below this share of operators, like 95%; a maybe counts as accelerated."
)
@click.option("--tpus", type=int, default=1, help="Cut the network into segments for so many accelerators.")
@click.option("--segments", type=FOLDER, help="Write these segments (.tflite) into a folder.")
@json_option
def check(model: Path, *, as_json: bool, **options: Any) -> None:
    """Say which operators of MODEL (.onnx, .tflite) a target accelerates, and why not the others."""
    from ..checking import check as run

    result = run(model, **options)
    if as_json:
        print_json(result.to_document())
    else:
        _show(result)


def _show(result: Check) -> None:
    from rich.console import Console

    # names are the model's own: a bracket in one is no markup
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else UNFOLDED)
    _show_operators(console, result)
    _show_partitions(console, result)
    _show_segments(console, result)
    _show_totals(console, result)
    for note in result.prediction.notes:
        click.echo(f"note: {note}", err=True)


def _show_operators(console: Console, result: Check) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    for title in ("operator", "name", "unit", "why not", "cure"):
        table.add_column(title, overflow="fold")
    for row in result.rows:
        why = row["reason"] or row["note"] or ""
        table.add_row(
            str(row["index"]),
            row["op"],
            _short(row["name"]),
            row["unit"],
            why if row["certain"] else DOUBT + why,
            row["cure"] or "",
            style=None if row["reason"] is None else "bold",
        )
    console.print(table)
    console.print()


def _show_partitions(console: Console, result: Check) -> None:
    from rich.table import Table

    from ..report import words

    table = Table(box=None, pad_edge=False)
    table.add_column("partition")
    for title in ("operators", "from", "to", "multiply-adds", "in", "out"):
        table.add_column(title, justify="right", no_wrap=True)
    for item in result.to_document()["partitions"]:
        ops = item["ops"]
        if ops:
            ends = (str(ops[0]), str(ops[-1]), f"{item['multiply_adds']:,}")
            table.add_row(
                item["unit"],
                str(len(ops)),
                *ends,
                words.size(item["bytes_in"]),
                words.size(item["bytes_out"]),
            )
    console.print(table)
    console.print()


def _show_segments(console: Console, result: Check) -> None:
    from rich.table import Table

    from ..report import words

    if not result.segments:
        return
    table = Table(box=None, pad_edge=False)
    for title in ("segment", "from", "to", "multiply-adds", "parameters", "in", "out", "predicted"):
        table.add_column(title, justify="right", no_wrap=True)
    for index, part in enumerate(result.segments):
        sizes = (words.size(size) for size in (part.parameter_bytes, part.bytes_in, part.bytes_out))
        work = f"{part.multiply_adds:,}"
        ends = (str(part.first), str(part.last))
        table.add_row(str(index), *ends, work, *sizes, words.milliseconds(part.seconds * 1e3))
    console.print(table)
    console.print()


def _show_totals(console: Console, result: Check) -> None:
    from ..report import words

    best = result.prediction
    console.print(f"{best.target} with {best.toolchain.compiler}: {_share(best.accelerated)} accelerated")
    if best.possible != best.accelerated:
        console.print(f"if every maybe were a yes: {_share(best.possible)}")
    console.print(
        f"parameters {words.size(best.network.parameter_bytes)}, activations at most "
        f"{words.size(best.peak_activation_bytes)} at once, {words.size(best.crossing_bytes)} between units per run"
    )
    if result.others:
        names = ", ".join(dict.fromkeys(toolchain.compiler for toolchain in result.others))
        console.print(f"other toolchains of this target (--toolchain): {names}")
    for toolchain, why in result.refused:
        console.print(f"with {toolchain.compiler}: not known: {why}", soft_wrap=True)


def _short(name: str) -> str:
    """Return the first of the names that a converter fused into one, cut to fit."""
    first, *more = name.split(";")
    cut = first[:NAME]
    return f"{cut}…" if more or len(first) > NAME else cut


def _share(share: Any) -> str:
    work = "" if share.multiply_adds is None else f", {share.multiply_adds:.1%} of the multiply-adds"
    return f"{share.ops:.1%} of the operators{work}"
