"""What devices should run: the next desired state, put into the store and onto the broker, and watched."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farrier_contracts.errors import FarrierError, InputError, UsageError
from farrier_contracts.wire.documents import Desired, RunningDeployment, WantedDeployment
from farrier_contracts.wire.topics import Topic, checked_id

from ..collector import connect, new_client
from ..collector.publishing import publish
from ..store import Device, Store, desired_before, device, devices, writing
from .config import Fleet

DELIVERY_TIMEOUT_S = 10.0  # for the broker to confirm
WAIT_TIMEOUT_S = 120.0
WATCH_S = 0.25


@dataclass(frozen=True)
class Progress:
    """How far one device is with its newest desired state; `phase` is "waiting" until the device has answered."""

    device: str
    version: int
    phase: str
    detail: str = ""

    @property
    def done(self) -> bool:
        """Say whether nothing more will happen by itself."""
        return self.phase in ("live", "failed")


def rollout(
    fleet: Fleet, bundle: str, *, names: Sequence[str] = (), deployment: str = "", port: int = 0
) -> list[Progress]:
    """Ask devices (all when `names` is empty) to run a published bundle `NAME@VERSION`; return what was asked.

    What else a device runs stays. Raises UsageError for a wrong reference, InputError for an unknown device, and
    FarrierError where the broker did not take it: it is kept then, and the collector will deliver it.
    """
    name, _, version = bundle.partition("@")
    if not version or len(version) > 128:
        raise UsageError(
            f"{bundle!r:.80} names no bundle; write NAME@VERSION, as `farrier repo publish` printed it"
        )
    checked_id(name, "a bundle's name")
    wanted = WantedDeployment(checked_id(deployment or name, "a deployment's name"), name, version, port)
    with fleet.open_store() as store:
        chosen = _chosen(store, fleet, names)
        return _set(store, fleet, [(each, with_deployment(each, wanted)) for each in chosen])


def rollback(fleet: Fleet, *, names: Sequence[str] = ()) -> list[Progress]:
    """Ask devices (all when `names` is empty) for what they should have run before; return what was asked."""
    with fleet.open_store() as store:
        steps = []
        for each in _chosen(store, fleet, names):
            before = desired_before(store, each.id)
            if before is None:
                raise InputError(
                    f"device {each.name} has had no other desired state; nothing was rolled back"
                )
            steps.append((each, Desired(next_version(each), before.deployments)))
        return _set(store, fleet, steps)


def watch(
    fleet: Fleet,
    asked: Sequence[Progress],
    *,
    timeout_s: float = WAIT_TIMEOUT_S,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> list[Progress]:
    """Wait until every device is live or failed, or the time is up; `tell` hears of every change."""
    deadline = time.monotonic() + timeout_s
    known = {each.device: each for each in asked}
    with fleet.open_store() as store:
        while True:
            for name, last in known.items():
                now = progress(device(store, name, fleet=fleet.name), last.version)
                if now != last:
                    known[name] = now
                    tell(now)
            if all(each.done for each in known.values()) or time.monotonic() > deadline:
                return list(known.values())
            time.sleep(WATCH_S)


def progress(device: Device, version: int) -> Progress:
    """Return how far a device is with the desired state of that version."""
    reported = device.reported
    if reported is None or reported.desired_version < version:
        return Progress(device.name, version, "waiting", "" if device.online else "the device is offline")
    wanted = {each.name: each for each in device.desired.deployments} if device.desired else {}
    running = {each.name: each for each in reported.deployments}
    parts = [running.get(name) for name in wanted]
    failed = [part for part in parts if part is not None and part.phase == "failed"]
    if failed:
        return Progress(device.name, version, "failed", failed[0].detail)
    late = [part for name, part in zip(wanted, parts, strict=True) if not _is_live(wanted[name], part)]
    if late:
        return Progress(
            device.name, version, late[0].phase if late[0] and late[0].phase != "live" else "waiting"
        )
    return Progress(device.name, version, "live")


def with_deployment(device: Device, wanted: WantedDeployment) -> Desired:
    """Return a device's next desired state: what it has, with one deployment added or replaced."""
    others = [
        each for each in (device.desired.deployments if device.desired else ()) if each.name != wanted.name
    ]
    deployments = sorted([*others, wanted], key=lambda each: each.name)
    return Desired(next_version(device), tuple(deployments))


def next_version(device: Device) -> int:
    """Return a version larger than what the store or the device has; a device may remember more than a new store."""
    known = device.desired.version if device.desired else 0
    return max(known, device.reported.desired_version if device.reported else 0) + 1


def _is_live(wanted: WantedDeployment, part: RunningDeployment | None) -> bool:
    return (
        part is not None
        and part.phase == "live"
        and (part.bundle, part.version) == (wanted.bundle, wanted.version)
    )


def _chosen(store: Store, fleet: Fleet, names: Sequence[str]) -> list[Device]:
    if names:
        return [device(store, name, fleet=fleet.name) for name in dict.fromkeys(names)]
    known = devices(store, fleet=fleet.name)
    if not known:
        raise InputError(f"fleet {fleet.name} has no devices yet; is `farrier collect` running?")
    return known


def _set(store: Store, fleet: Fleet, steps: Sequence[tuple[Device, Desired]]) -> list[Progress]:
    with store.transaction():
        for each, desired in steps:
            writing.set_desired(store, each.id, desired)
    try:
        _deliver(fleet, steps)
    except FarrierError as error:
        raise FarrierError(
            f"{error}; the wish is kept, and a collector that reaches the broker delivers it"
        ) from None
    return [Progress(each.name, desired.version, "waiting") for each, desired in steps]


def _deliver(fleet: Fleet, steps: Sequence[tuple[Device, Desired]]) -> None:
    client = new_client(fleet.broker, f"farrier-fleet-{secrets.token_hex(6)}")
    connect(client, fleet.broker, timeout_s=DELIVERY_TIMEOUT_S)
    client.loop_start()
    try:
        receipts = [
            publish(client, Topic(fleet.name, each.name, "desired"), desired.to_document())
            for each, desired in steps
        ]
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        for receipt in receipts:
            receipt.wait_for_publish(max(deadline - time.monotonic(), 0))
            if not receipt.is_published():
                raise FarrierError(f"the broker {fleet.broker} did not take the desired state")
    finally:
        client.disconnect()
        client.loop_stop()
