from __future__ import annotations

from dataclasses import replace

import click


@click.command()
@click.option("--broker", required=True, metavar="URL", help="The fleet's MQTT broker: mqtt://host:1883.")
@click.option("--store", required=True, metavar="URL", help="Where to keep it: sqlite:///fleet.db.")
@click.option("--fleet", metavar="NAME", help="Only this fleet; without it, every fleet on the broker.")
@click.option(
    "--connect-timeout",
    type=click.FloatRange(min=0),
    help="Seconds to wait for the broker at the start  [default: 10].",
)
def collect(broker: str, store: str, fleet: str | None, connect_timeout: float | None) -> None:
    """Store a fleet's telemetry, states and events until stopped.

    Every point is acknowledged to its device only after it is on the disk, so the collector may be killed at any
    moment without loss.
    """
    from ..collector import Settings
    from ..collector import collect as run
    from ..signals import told_to_stop

    settings = Settings()
    if connect_timeout is not None:
        settings = replace(settings, connect_timeout_s=connect_timeout)
    with told_to_stop() as told:
        done = run(broker, store, fleet=fleet, settings=settings, stop=told, say=_say)
    _say(
        f"stopped: {done.points} points and {done.events} events stored, {done.duplicates} points came twice"
    )


def _say(sentence: str) -> None:
    click.echo(f"farrier collect: {sentence}", err=True)
