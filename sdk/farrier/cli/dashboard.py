from __future__ import annotations

from pathlib import Path

import click

from .options import FILE


@click.command()
@click.option("--store", required=True, metavar="URL", help="The fleet's store: sqlite:///fleet.db.")
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True,
              help="The port to listen on; 0: any free one.")  # fmt: skip
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all."
)
@click.option("--token", help="The password of the page; without one, it is made and printed.")
@click.option("--token-file", type=FILE, help="A file that holds the token.")
def dashboard(store: str, port: int, host: str, token: str | None, token_file: Path | None) -> None:
    """Show a fleet in the browser, behind a token."""
    from ..web import dashboard as run
    from ..web.access import read_token

    if token is not None and token_file is not None:
        raise click.UsageError("--token and --token-file say the same thing; give one")
    if token_file is not None:
        token = read_token(token_file)

    def ready(address: str) -> None:
        click.echo("farrier dashboard: open in a browser", err=True)
        click.echo(address)

    run(store, host=host, port=port, token=token, ready=ready)
