"""`farrier distill`: a thin command over `farrier.distill`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import UNFOLDED, json_option, print_json
from ..progress import progress

if TYPE_CHECKING:
    from ...distilling import Result

FILE = click.Path(path_type=Path)
WAYS = ("alternate", "first", "last", "importance")
FIT = ("epochs", "learning_rate", "optimizer", "device", "precision")


@click.command()
@click.argument("teacher", type=FILE)
@click.option("--train", type=FILE, required=True, help="Rows (.npz) to learn from, with labels or without.")
@click.option("-d", "--data", type=FILE, help="Rows (.npz) to be judged on; else a part of --train.")
@click.option("--student", type=FILE, help="The student (.onnx).")
@click.option("--layers", help="Make the student: keep half, a share like 33%, or a number of layers.")
@click.option("--width", help="Make the student: keep this share of the channels, like 50%.")
@click.option(
    "--way", type=click.Choice(WAYS), default="alternate", show_default=True, help="Which layers stay."
)
@click.option("--metric", help="As for optimize; chosen by the labels otherwise.")
@click.option("--temperature", type=float, default=4.0, show_default=True, help="Of the answers compared.")
@click.option(
    "--hard", type=float, default=0.5, show_default=True, help="Share of the labels in the loss, 0 to 1."
)
@click.option("--features", type=float, default=0.0, help="Weight of inner tensors, through projections.")
@click.option("--attention", type=float, default=0.0, help="Weight of attention: maps, places or relations.")
@click.option(
    "--pair", "pairs", multiple=True, help="Compare these tensors inside: STUDENT=TEACHER; may be repeated."
)
@click.option(
    "--loss", "losses", multiple=True, help="How to compare an output: NAME=LOSS, like boxes=l1; repeated."
)
@click.option("--and-teacher", "teachers", type=FILE, multiple=True, help="One more teacher; repeated.")
@click.option(
    "--adapt", type=int, default=2, show_default=True, help="Epochs that teachers train on the labels first."
)
@click.option("--unlabelled", is_flag=True, help="Forget the labels of --train: learn from answers alone.")
@click.option("--mask", help="Input [rows, steps] that is zero at padding.")
@click.option("--next-token", help="Input of token numbers, each of which labels the one before it.")
@click.option("--alone", is_flag=True, help="Train the student without a teacher, too, to compare.")
@click.option("--epochs", type=int, default=3, show_default=True)
@click.option("--learning-rate", type=float, default=5e-4, show_default=True)
@click.option("--optimizer", type=click.Choice(["adamw", "adam", "sgd"]), default="adamw", show_default=True)
@click.option("--batch", type=int, default=64, show_default=True, help="Rows in a step.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which a killed training goes on.",
)
@click.option("-o", "--out", type=FILE, required=True, help="Folder for the results.")
@json_option
def distill(teacher: Path, *, as_json: bool, **given: Any) -> None:
    """Teach a student what TEACHER (.onnx) knows; writes student.onnx and a report.

    The student is a model of its own (--student), or made from the teacher (--layers, --width).
    """
    from farrier_converters.passes.distill import DistillOptions

    from ...distilling import distill as run

    options = DistillOptions(
        temperature=given.pop("temperature"),
        hard=given.pop("hard"),
        features=given.pop("features"),
        attention=given.pop("attention"),
        pairs=[_both(pair, "--pair") for pair in given.pop("pairs")],
        losses=dict(_both(loss, "--loss") for loss in given.pop("losses")),
        teachers=given.pop("teachers"),
        adapt=given.pop("adapt"),
        mask=given.pop("mask"),
        next_token=given.pop("next_token"),
        fit={name: given.pop(name) for name in FIT},
    )
    said: list[str] = []
    with progress(quiet=as_json, said=said) as report:
        result = run(teacher, options=options, progress=report, **given)
    if as_json:
        print_json(result.to_document())
    else:
        _show(result, said)


def _both(text: str, option: str) -> tuple[str, str]:
    left, equals, right = text.rpartition("=")
    if not (equals and left and right):
        raise click.UsageError(f"{option} takes two names with = between them, not {text!r}")
    return left, right


def _show(result: Result, said: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ...report import words

    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNFOLDED)
    table = Table(box=None, pad_edge=False)
    for title in ("model", result.metric.name, "weights", "size", "p50"):
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for name, scored in result.models.items():
        table.add_row(
            name,
            words.metric(scored.value, relative=result.metric.relative),
            f"{scored.parameters:,}",
            words.size(scored.bytes),
            words.milliseconds(scored.latency_ms),
            style="bold" if name == result.delivered else None,
        )
    console.print(table)
    console.print()
    console.print(result.verdict)
    for path, what in ((result.student, "student"), (result.out / "report.html", "report")):
        console.print(f"  {what:9} {path}", soft_wrap=True)
    for note in (note for note in result.notes if note not in said):
        click.echo(f"note: {note}", err=True)
