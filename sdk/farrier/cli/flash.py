"""`farrier flash`: a thin wrapper around `farrier.flash`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FILE, json_option, print_json, ssh_options

# Written out so that `farrier flash --help` imports nothing more; a test holds them to the package's.
ENGINES = ("onnx", "litert", "tflite-legacy")
SERVICES = ("auto", "systemd", "plain")
BIRTH_LIMIT_S = 120.0


@click.command()
@click.argument("destination", metavar="USER@HOST")
@ssh_options
@click.option("--fleet", type=FILE, default=Path("FLEET.toml"), show_default=True, help="The fleet's file.")
@click.option(
    "--bundle", default="", metavar="NAME@VERSION|FILE", help="A published bundle that the device is to run."
)
@click.option(
    "--device",
    default="",
    help="The device's name in the fleet  [default: the one it has, or its host name].",
)
@click.option(
    "--prefix", default="", help="Folder on the device  [default: /opt/farrier, or below the user's home]."
)
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), metavar="NAME",
              help="onnx, litert or tflite-legacy; may be given several times  [default: what fits].")  # fmt: skip
@click.option("--service", type=click.Choice(SERVICES), default="auto", show_default=True,
              help="What keeps the agent running.")  # fmt: skip
@click.option("--at-boot/--no-at-boot", default=True, show_default=True, help="Start the agent at boot.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=BIRTH_LIMIT_S, show_default=True,
              help="Seconds until the device must be heard from.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Look at the device and print the plan; change nothing.")
@json_option
def flash(destination: str, *, as_json: bool, **options: object) -> None:
    """Install the agent on a device over SSH and wait until the fleet hears from it."""
    from ..flashing import flash as run
    from ..flashing.flow import describe

    done = run(destination, say=lambda line: click.echo(line, err=True), **options)  # type: ignore[arg-type]
    if as_json:
        print_json(done.to_document())
    elif done.release:
        click.echo(f"{done.plan.device} is online: release {done.release} in {done.plan.prefix}")
    else:
        click.echo(describe(done.plan))
