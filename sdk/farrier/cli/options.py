"""What the commands share: kinds of arguments, `--json`, and groups that list their commands in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
UNFOLDED = 400  # characters: the width of a table that goes to a file or pipe, which have none
HELP = {"help_option_names": ["-h", "--help"]}
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


_SSH = (
    click.option("--port", type=int, help="Port of the device's SSH server; else as ssh has it."),
    click.option("--identity", type=click.Path(path_type=Path), help="Private key to log in with."),
    click.option(
        "--accept-new-host-key", is_flag=True, help="Take the key of a device never seen before as it is."
    ),
    click.option(
        "--ssh-option", "ssh_options", multiple=True, metavar="KEY=VALUE", help="Handed on to ssh -o."
    ),
)


def ssh_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which a device is reached: port, identity, accept_new_host_key and ssh_options."""
    for option in reversed(_SSH):
        command = option(command)
    return command


class Group(click.Group):
    """A group that lists its commands in the order of their definition, which is the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


def print_json(document: Any) -> None:
    """Print a document for a script to read."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))
