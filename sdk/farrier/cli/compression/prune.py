"""`farrier prune`: a thin command over `farrier.prune` and `farrier.pruning.groups`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farrier_contracts.errors import UsageError

from ..options import FILE, UNFOLDED, json_option, print_json
from ..progress import progress

if TYPE_CHECKING:
    from rich.console import Console

    from ...pruning import Pruning
    from ...pruning.groups import Listing

ROWS = click.Path(path_type=Path)
NAME = 44  # characters of a layer's name that tables show
SHOWN = 3  # layers of a group that are named in the table


@click.command()
@click.argument("model", type=FILE)
@click.option(
    "--show-groups", is_flag=True, help="Only show which channels hang together, what stays and why."
)
@click.option("--ratio", help="Share of the multiply-adds that goes, like 50%.")
@click.option("--speedup", help="How many times fewer multiply-adds, like 2x.")
@click.option("--latency", help="Share of the time that may be left, like 60%.")
@click.option("--max-latency", help="Median time of a run that is to be reached, like 2ms.")
@click.option("--parameters", help="Share of the parameters that may be left, like 50%.")
@click.option(
    "--sparsity", help="Share of zeros among the weights, like 90%; besides a goal above, or instead."
)
@click.option(
    "--pattern", default="unstructured", show_default=True, help="Of the zeros: unstructured, 2:4, 4x1, 1x16."
)
@click.option("--importance", default="auto", show_default=True, help="l1, l2, median, scale, activation, nonzero, "
    "energy, taylor, gate, fisher, hessian or random.")  # fmt: skip
@click.option("--scope", type=click.Choice(["global", "layer"]), default="global", show_default=True,
    help="Whether layers compete, or each loses the same share.")  # fmt: skip
@click.option("--iterative", "rounds", type=int, default=1, show_default=True, metavar="ROUNDS",
    help="Approach the goal in so many rounds, with fine-tuning between where there is --train.")  # fmt: skip
@click.option(
    "--schedule", type=click.Choice(["geometric", "linear"]), default="geometric", show_default=True
)
@click.option(
    "--any-width", is_flag=True, help="Let counts of channels end anywhere: often slower than dense."
)
@click.option("--no-blocks", is_flag=True, help="Leave whole layers and blocks in.")
@click.option("--no-rebuild", is_flag=True, help="Leave the weights that stay as they are.")
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Layers that stay whole, like 'head*'; repeatable."
)
@click.option("--keep-ends", is_flag=True, help="Leave the first and the last layer whole.")
@click.option(
    "--keep-least", type=float, default=0.1, show_default=True, help="Share of each group that stays."
)
@click.option("--calib", type=ROWS, help="Rows (.npz) without labels, for importance and rebuilding.")
@click.option(
    "--train",
    type=ROWS,
    help="Rows (.npz) to fine-tune on, by the model's own answers and by labels, if any.",
)
@click.option("--epochs", type=int, default=10, show_default=True, help="Of fine-tuning; 0: none.")
@click.option("--batch", type=int, default=64, show_default=True, help="Rows per step of training.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="cpu", show_default=True)
@click.option("-d", "--data", type=ROWS, help="Rows (.npz) that judge, with labels or not.")
@click.option("--metric", help="As for optimize; chosen by the labels otherwise.")
@click.option("-t", "--target", default="host", show_default=True, help="What the model will run on.")
@click.option("--engine", help="Of the target's engines, this one, like onnxruntime or litert.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True,
    help="In which the model will run: its steps count.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder for the results, or a file (.onnx)."
)
@json_option
def prune(model: Path, *, show_groups: bool, out: Path | None, as_json: bool, **options: Any) -> None:
    """Remove channels and whole blocks from MODEL (.onnx) where that makes it faster, and say what it cost."""
    if show_groups:
        _groups(model, options, as_json=as_json)
        return
    if out is None:
        raise UsageError("say where the results go: -o FOLDER or -o FILE.onnx (or ask for --show-groups)")
    from farrier_converters.pruning.options import PruneOptions

    from ...pruning import prune as run

    own = {
        "blocks": not options.pop("no_blocks"),
        "rebuild": not options.pop("no_rebuild"),
        **{name: options.pop(name) for name in (
            "importance", "scope", "rounds", "schedule", "any_width", "exclude", "keep_ends", "keep_least",
        )},
    }  # fmt: skip
    with progress(quiet=as_json) as report:
        result = run(model, out=out, options=PruneOptions(**own), progress=report, **options)
    if as_json:
        print_json(result.to_document())
    else:
        _show(result, out)


def _groups(model: Path, options: dict[str, Any], *, as_json: bool) -> None:
    from ...pruning import groups

    found = groups(model, **{name: options[name] for name in ("target", "engine", "precision")})
    if as_json:
        print_json(found.to_document())
    else:
        _show_groups(_console(), found)


def _console() -> Console:
    from rich.console import Console

    # names are the model's own: a bracket in one is no markup
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else UNFOLDED)


def _show_groups(console: Console, found: Listing) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("group", overflow="fold")
    for title in ("channels", "next step", "parameters", "multiply-adds"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("made by", overflow="fold")
    table.add_column("read by", overflow="fold")
    for entry in found.groups:
        table.add_row(
            _short(entry.name),
            str(entry.channels),
            "–" if entry.next_width is None else str(entry.next_width),
            _share(entry.parameters, found.parameters),
            _share(entry.multiply_adds, found.multiply_adds),
            _some(entry.makers),
            _some(entry.readers),
        )
    console.print(table)
    if found.blocks:
        console.print()
        table = Table(box=None, pad_edge=False)
        table.add_column("block that can be left out", overflow="fold")
        table.add_column("from", overflow="fold")
        table.add_column("nodes", justify="right")
        table.add_column("parameters", justify="right", no_wrap=True)
        for block in found.blocks:
            share = _share(block.parameters, found.parameters)
            table.add_row(_short(block.name), _short(block.input), str(len(block.ops)), share)
        console.print(table)
    if found.frozen:
        console.print()
        table = Table(box=None, pad_edge=False)
        table.add_column("stays", overflow="fold")
        table.add_column("operator")
        table.add_column("channels", justify="right")
        table.add_column("why", overflow="fold")
        for item in found.frozen:
            table.add_row(_short(item.node), item.op, str(item.channels), item.reason)
        console.print(table)
    console.print()
    console.print(
        f"{len(found.groups)} groups, {len(found.blocks)} blocks; {found.multiply_adds:,} multiply-adds, "
        f"{found.parameters:,} parameters; steps of {found.engine} on {found.target}"
    )
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


def _show(result: Pruning, out: Path) -> None:
    from rich.table import Table

    from ...report import words

    console = _console()
    before, after = result.before, result.after
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("dense", "pruned", "gain"):
        table.add_column(title, justify="right", no_wrap=True)

    def row(name: str, first: float | None, second: float | None, text: Any) -> None:
        if first is None or second is None:
            return
        table.add_row(name, text(first), text(second), words.times(first / second) if second else "–")

    row("multiply-adds", before.multiply_adds, after.multiply_adds, lambda v: f"{v:,}")
    row("parameters", before.parameters, after.parameters, lambda v: f"{v:,}")
    row("bytes", before.bytes, after.bytes, words.size)
    row(
        f"median time ({result.engine}, {result.precision})",
        before.latency_ms,
        after.latency_ms,
        words.milliseconds,
    )
    if result.metric is not None:
        relative = result.metric.relative
        values = [words.metric(figures.metric, relative=relative) for figures in (before, after)]
        table.add_row(result.metric.name, *values, "")
    if after.zeros is not None:
        table.add_row("zeros", "", f"{after.zeros:.1%}", "")
    console.print(table)
    _show_removed(console, result)
    if result.efficiency is not None and result.delivered == "pruned":
        console.print(f"gain in time per gain in multiply-adds: {result.efficiency:.2f}")
    console.print(result.verdict, soft_wrap=True)
    console.print(f"  {out}")


def _show_removed(console: Console, result: Pruning) -> None:
    from rich.table import Table

    changed = [group for group in result.groups if group["before"] != group["after"]]
    console.print()
    if result.blocks:
        console.print(f"blocks that went: {', '.join(result.blocks)}", soft_wrap=True)
    if changed:
        table = Table(box=None, pad_edge=False)
        table.add_column("group", overflow="fold")
        table.add_column("channels", justify="right")
        table.add_column("left", justify="right")
        for group in changed:
            table.add_row(_short(group["name"]), str(group["before"]), str(group["after"]))
        console.print(table)
    if changed or result.blocks:
        console.print()


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(_short(name) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / max(whole, 1):.0%})"
