"""`farrier targets`: what a model can be fitted to."""

from __future__ import annotations

import sys

import click

from .options import UNFOLDED, json_option, print_json


@click.command()
@json_option
def targets(*, as_json: bool) -> None:
    """List the targets: what each is, what is built for it, and which engine runs that."""
    from rich.console import Console
    from rich.table import Table

    from farrier_contracts.targets import TARGETS, host

    from .. import catalogue

    if as_json:
        print_json({"host": host().name, "targets": catalogue.document()})
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNFOLDED)
    table = Table(box=None, pad_edge=False)
    table.add_column("target", no_wrap=True)
    for title in ("what it is", "what is built for it"):
        table.add_column(title, overflow="fold")
    for target in TARGETS.values():
        built = "\n".join(
            f".{t.format} for {t.engine}: {', '.join(t.precisions)}"
            + (f" (answers checked in {t.stand_in} here)" if t.stand_in else "")
            for t in target.toolchains
        )
        table.add_row(target.name, target.description, built)
    console.print(table)
    click.echo(f"\nhost, this machine, is {host().name}")
