from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from .options import FILE, FOLDER, HELP, Group, json_option, print_json


@click.group(cls=Group, context_settings=HELP)
def repo() -> None:
    """Keep a signed update repository: what devices may run, by TUF metadata."""


@repo.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--root-days", type=int, help="Days until devices refuse the root's signature  [default: 1095]."
)
@click.option("--targets-days", type=int, help="The same for the list of what is published  [default: 365].")
@click.option("--snapshot-days", type=int, help="The same for the snapshot  [default: 90].")
@click.option(
    "--timestamp-days",
    type=int,
    help="The same for the timestamp, which 'repo refresh' renews [default: 30].",
)
def init(folder: Path, **days: int | None) -> None:
    """Make a repository: new keys and signed, empty metadata."""
    from ..repo import Lifetimes
    from ..repo import init as run

    chosen = {name: value for name, value in days.items() if value is not None}
    repository = run(folder, lifetimes=Lifetimes(**chosen))
    click.echo(f"{folder}: repository with new keys in {repository.keys}; keep them private")
    click.echo(f"give every device {repository.root}")


@repo.command()
@click.argument("bundle", type=FILE)
@click.option("--repo", "folder", type=FOLDER, required=True, metavar="DIR", help="The repository.")
@json_option
def publish(bundle: Path, folder: Path, as_json: bool) -> None:
    """Publish a bundle, so that devices may fetch it."""
    from ..repo import publish as run

    done = run(bundle, repo=folder)
    if as_json:
        print_json(vars(done))
    elif done.already_published:
        click.echo(f"{done.name}@{done.version} was already published, unchanged")
    else:
        click.echo(
            f"{done.name}@{done.version} is published: {done.parts_added} new parts, {done.bytes_added} bytes"
        )


@repo.command()
@click.argument("folder", type=FOLDER)
@json_option
def refresh(folder: Path, as_json: bool) -> None:
    """Sign anew what is about to expire; run it daily.

    The timestamp is always signed, everything else once it is past half its life.
    """
    from ..repo import Repository, is_due
    from ..repo import refresh as run

    done = run(folder)
    expiries = {role: expires.isoformat() for role, expires in done.items()}
    if is_due(Repository(folder), "root", done["root"], now=datetime.now(timezone.utc)):
        click.echo(
            f"farrier repo: the root expires on {done['root']:%Y-%m-%d} and its key is not here: "
            f"bring root.pem back to {folder / 'keys'} and refresh again",
            err=True,
        )
    if as_json:
        print_json(expiries)
    else:
        for role, expires in expiries.items():
            click.echo(f"{role:<10} valid until {expires}")


@repo.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8788,
    show_default=True,
    help="The port to listen on; 0: any free one.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all."
)
def serve(folder: Path, port: int, host: str) -> None:
    """Serve a repository's public folder over HTTP until stopped."""
    from ..repo import serve as run

    def ready(address: str) -> None:
        click.echo(f"farrier repo: serving {folder} at", err=True)
        click.echo(address)

    run(folder, port=port, host=host, ready=ready)
