"""`farrier.flash`: put the agent on a device over SSH and wait until the fleet hears from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from farrier_contracts.errors import FarrierError

from ..fleet import Fleet, load_fleet
from . import birth, bundles, steps
from .config import check_fleet, check_reachable, device_files
from .plan import Options, Plan, check, plan
from .ssh import Connection, Remote
from .wheels import wheelhouse

BIRTH_LIMIT_S = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One finished step and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Flashed:
    """What a flash did. `kept`: the release was there already; `release` is 0 after a dry run."""

    plan: Plan
    fleet: str
    release: int = 0
    kept: bool = False
    agent: str = ""
    birth: birth.Birth | None = None
    bundle: str = ""
    steps: tuple[Step, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Return the result as JSON would have it."""
        document = asdict(self.plan)
        place = document.pop("place")
        document["platform"] = str(self.plan.platform)
        return {
            "fleet": self.fleet,
            **document,
            "before": place,
            "release": self.release,
            "kept": self.kept,
            "agent": self.agent,
            "boot": self.birth.boot if self.birth else "",
            "birth": self.birth.document if self.birth else {},
            "bundle": self.bundle,
            "steps": [asdict(step) for step in self.steps],
        }


class _Clock:
    """Says what begins, and notes how long it took."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.steps: list[Step] = []

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        self.say(f"{text} ...")
        started = time.monotonic()
        yield
        self.steps.append(Step(name, round(time.monotonic() - started, 3)))
        self.say(f"  {self.steps[-1].seconds:.1f} s")


def flash(
    destination: str,
    *,
    fleet: Path,
    port: int | None = None,
    identity: Path | None = None,
    accept_new_host_key: bool = False,
    ssh_options: Sequence[str] = (),
    device: str = "",
    bundle: str = "",
    prefix: str = "",
    engines: Sequence[str] = (),
    service: str = "auto",
    at_boot: bool = True,
    timeout_s: float = BIRTH_LIMIT_S,
    cache: Path | None = None,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> Flashed:
    """Install the agent on USER@HOST, configure it for a fleet, start it and wait for its birth.

    Nothing on the device needs a network for it: the wheels are resolved here. Doing it again is safe: a release that
    is there already is kept, the agent's state too, and an interrupted flash leaves the running agent alone.
    `timeout_s` is how long the agent may take until its birth arrives. `bundle`, a published bundle's NAME@VERSION or
    its file, is what the device is then asked to run, and waited for; that needs the fleet's collector running.
    Raises FarrierError with one sentence.
    """
    remote = Remote(destination, port, identity, accept_new_host_key, tuple(ssh_options))
    wanted = bundles.named(bundle) if bundle else None
    engines = tuple(engines) or (wanted.engines if wanted else ())
    options = Options(device, prefix, engines, service, at_boot)
    remote.check()
    check(options)
    fleet_file = load_fleet(fleet)
    check_fleet(fleet_file)
    clock = _Clock(say)
    with Connection(remote) as connection:
        with clock.step("look", f"looking at {destination}"):
            facts = steps.look(connection, prefix)
            planned = plan(facts, options)
            if not facts.same_machine:
                check_reachable(fleet_file)
        say(describe(planned))
        if dry_run:
            return Flashed(planned, fleet_file.name, steps=tuple(clock.steps))
        with birth.BirthWatch(fleet_file) as watch:
            done = _install(connection, planned, fleet_file, watch, clock, timeout_s=timeout_s, cache=cache)
    if wanted:
        with clock.step("deploy", f"asking it to run {wanted.reference}"):
            bundles.deploy(fleet_file, planned.device, wanted.reference)
        done = replace(done, bundle=wanted.reference, steps=tuple(clock.steps))
    return done


def describe(planned: Plan) -> str:
    """Return a plan in one line."""
    service = {"systemd": "a systemd service", "plain": "a plain supervisor"}[planned.service]
    boot = "" if planned.at_boot else " that does not start at boot"
    return (
        f"{planned.device}: {planned.platform}; engine {', '.join(planned.engines)}; "
        f"into {planned.prefix} as {service}{boot}"
    )


def _install(
    connection: Connection,
    planned: Plan,
    fleet: Fleet,
    watch: birth.BirthWatch,
    clock: _Clock,
    *,
    timeout_s: float,
    cache: Path | None,
) -> Flashed:
    if watch.look(planned.device) and planned.place.device != planned.device:
        raise FarrierError(
            f"a device named {planned.device} is online in the fleet {fleet.name} already; "
            "give this one another name with --device"
        )
    with clock.step("wheels", f"resolving wheels for {planned.platform}"):
        wheels = wheelhouse.resolve(planned.platform, planned.engines, cache=cache)
    kept = planned.place.release > 0 and planned.place.digest == wheels.digest
    installed = steps.Installed(planned.place.release)
    if not kept:
        with clock.step("install", f"installing {len(wheels.wheels)} wheels on the device"):
            installed = steps.install(
                connection, planned, wheels, on_step=lambda text: clock.say(f"  {text}")
            )
    watch.arm()
    with clock.step("activate", f"starting release {installed.number}"):
        for note in steps.activate(connection, planned, installed.number, device_files(fleet, planned)):
            clock.say(f"  {note}")
    with clock.step("birth", "waiting for its birth"):
        born = watch.birth(timeout_s)
    if born is None:
        raise FarrierError(_stillborn(connection, planned, timeout_s))
    return Flashed(
        planned,
        fleet.name,
        release=installed.number,
        kept=kept,
        agent=installed.agent,
        birth=born,
        steps=tuple(clock.steps),
    )


def _stillborn(connection: Connection, planned: Plan, timeout_s: float) -> str:
    lines = steps.log_lines(connection, planned)
    said = f"its log ends with: {' | '.join(lines[-3:])[-600:]}" if lines else "its log is empty"
    return f"the agent was started but was not heard from within {timeout_s:g} s; {said}"
