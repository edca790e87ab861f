from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def repo() -> None:
    """Keep a signed update repository: what devices may run, by TUF metadata."""


@repo.command()
@click.argument("folder", type=FOLDER)
@click.option("--root-days", type=int, help="Days until devices refuse the root's signature.")
@click.option("--targets-days", type=int, help="The same for the list of what is published.")
@click.option("--snapshot-days", type=int, help="The same for the snapshot.")
@click.option("--timestamp-days", type=int, help="The same for the timestamp; 'repo refresh' renews it.")
def init(folder: Path, **days: int | None) -> None:
    """Make a repository: one key per role, and signed, empty metadata."""
    from ..repo import Lifetimes
    from ..repo import init as run

    chosen = {name: value for name, value in days.items() if value is not None}
    repository = run(folder, lifetimes=Lifetimes(**chosen))
    click.echo(f"{folder}: repository with new keys in {repository.keys}; keep them private")
    click.echo(f"give every device {repository.root}")


@repo.command()
@click.argument("bundle", type=FILE)
@click.option("--repo", "folder", type=FOLDER, required=True, metavar="DIR", help="The repository.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def publish(bundle: Path, folder: Path, as_json: bool) -> None:
    """Publish a bundle, so that devices may fetch it."""
    from ..repo import publish as run

    done = run(bundle, repo=folder)
    if as_json:
        _print_json(vars(done))
    elif done.already_published:
        click.echo(f"{done.name}@{done.version} was already published, unchanged")
    else:
        click.echo(
            f"{done.name}@{done.version} is published: {done.parts_added} new parts, {done.bytes_added} bytes"
        )


@repo.command()
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print when each role expires as JSON.")
def refresh(folder: Path, as_json: bool) -> None:
    """Sign the timestamp anew, and whatever else is past half its life; run it daily."""
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
        _print_json(expiries)
    else:
        for role, expires in expiries.items():
            click.echo(f"{role:<10} valid until {expires}")


@repo.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8788, show_default=True, help="0: any free port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for every interface.")
def serve(folder: Path, port: int, host: str) -> None:
    """Serve a repository's public folder over HTTP until stopped."""
    from ..repo import serve as run

    run(folder, port=port, host=host, ready=click.echo)


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=1, sort_keys=True))
