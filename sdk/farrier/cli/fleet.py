from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, FOLDER, HELP, Group, json_option, print_json

if TYPE_CHECKING:
    from ..fleet import Progress
    from ..store import Device, Store

fleet_option = click.option(
    "--fleet", "path", type=FILE, default=Path("FLEET.toml"), show_default=True, help="The fleet's file."
)
names_option = click.option(
    "--device", "names", multiple=True, metavar="NAME", help="A device; may be given several times."
)
all_option = click.option("--all", "everyone", is_flag=True, help="Every device of the fleet.")
wait_option = click.option("--wait", is_flag=True, help="Wait until every device is live or failed.")
timeout_option = click.option("--timeout", type=float, help="Seconds to wait at most  [default: 120].")


@click.group(cls=Group, context_settings=HELP)
def fleet() -> None:
    """See and steer a fleet of devices."""


@fleet.command()
@click.argument("folder", type=FOLDER)
@click.option("--name", required=True, help="The fleet's name, as it stands in topics.")
@click.option("--broker", required=True, metavar="URL", help="mqtt://host:1883 or mqtts://host:8883.")
@click.option("--repository", required=True, metavar="URL", help="Where devices fetch bundles.")
@click.option("--root", required=True, type=FILE, help="The repository's root of trust: its 1.root.json.")
def init(folder: Path, name: str, broker: str, repository: str, root: Path) -> None:
    """Make FLEET.toml and what belongs beside it."""
    from ..fleet import init_fleet

    click.echo(init_fleet(folder, name=name, broker=broker, repository=repository, root=root))


@fleet.command()
@fleet_option
@json_option
def ls(path: Path, as_json: bool) -> None:
    """List the devices and what they run."""
    from ..fleet import load_fleet
    from ..fleet.facts import device_facts
    from ..store import devices

    known = load_fleet(path)
    with known.open_store() as store:
        now = time.time_ns()
        facts = [device_facts(store, each, now_ns=now) for each in devices(store, fleet=known.name)]
    if as_json:
        print_json(facts)
    elif facts:
        _print_table(facts)
    else:
        click.echo(f"fleet {known.name} has no devices yet; is `farrier collect` running?", err=True)


@fleet.command()
@click.argument("device")
@fleet_option
@json_option
def show(device: str, path: Path, as_json: bool) -> None:
    """Show one device: deployments, telemetry's account, events."""
    from ..fleet import load_fleet
    from ..store import device as find

    known = load_fleet(path)
    with known.open_store() as store:
        facts = _details(store, find(store, device, fleet=known.name))
    if as_json:
        print_json(facts)
    else:
        _print_device(facts)


@fleet.command()
@click.argument("bundle", metavar="NAME@VERSION")
@names_option
@all_option
@click.option(
    "--as", "deployment", default="", metavar="NAME", help="The deployment's name  [default: the bundle's]."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="The port to serve on there; 0: the agent's choice.",
)
@fleet_option
@wait_option
@timeout_option
@json_option
def rollout(names: tuple[str, ...], everyone: bool, path: Path, **options: Any) -> None:
    """Have devices run a published bundle."""
    from ..fleet import load_fleet
    from ..fleet import rollout as run

    known = load_fleet(path)
    _check_choice(names, everyone)
    asked = run(
        known,
        options["bundle"],
        names=names,
        deployment=options["deployment"],
        port=options["port"],
    )
    _follow(known, asked, wait=options["wait"], timeout=options["timeout"], as_json=options["as_json"])


@fleet.command()
@names_option
@all_option
@fleet_option
@wait_option
@timeout_option
@json_option
def rollback(
    names: tuple[str, ...], everyone: bool, path: Path, wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Have devices run what they were to run before."""
    from ..fleet import load_fleet
    from ..fleet import rollback as run

    known = load_fleet(path)
    _check_choice(names, everyone)
    _follow(known, run(known, names=names), wait=wait, timeout=timeout, as_json=as_json)


def _check_choice(names: tuple[str, ...], everyone: bool) -> None:
    if bool(names) == everyone:
        raise click.UsageError("say which devices with --device, or --all")


def _follow(known: Any, asked: list[Progress], *, wait: bool, timeout: float | None, as_json: bool) -> None:
    from farrier_contracts.errors import FarrierError

    from ..fleet.rollouts import WAIT_TIMEOUT_S, watch

    limit = WAIT_TIMEOUT_S if timeout is None else timeout
    result = watch(known, asked, timeout_s=limit, tell=_say_progress) if wait else asked
    if as_json:
        print_json([vars(each) for each in result])
    elif not wait:
        for each in result:
            click.echo(f"{each.device}: asked for version {each.version} of its desired state")
    if wait and any(each.phase != "live" for each in result):
        late = ", ".join(f"{each.device} ({each.phase})" for each in result if each.phase != "live")
        raise FarrierError(f"not live on every device: {late}; see `farrier fleet show`")


def _say_progress(progress: Progress) -> None:
    detail = f": {progress.detail}" if progress.detail else ""
    click.echo(f"{progress.device} {progress.phase}{detail}", err=True)


def _details(store: Store, device: Device) -> dict[str, Any]:
    from ..fleet.facts import device_details

    return device_details(store, device, now_ns=time.time_ns())


def _print_table(facts: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..fleet.words import table_row

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("device", "state", "deployment", "version", "phase", "req/s", "p50", "p99", "last seen")
    for name in columns:
        table.add_column(name, justify="right" if name in ("req/s", "p50", "p99") else "left", no_wrap=True)
    for each in facts:
        for row in table_row(each):
            table.add_row(*row)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)


def _print_device(facts: dict[str, Any]) -> None:
    from ..fleet.words import device_lines

    for line in device_lines(facts):
        click.echo(line)
