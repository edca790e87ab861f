"""What others ask of a slot: when it wants to be woken, whether it is done, and how it is reported."""

from __future__ import annotations

from typing import Optional

from farrier_contracts.wire.documents import RunningDeployment

from .model import Build, Release, Slot


def deadline(slot: Slot) -> Optional[float]:
    """Return the monotonic second at which the slot wants a Tick, None for never."""
    times = [until for _, until in slot.draining]
    if slot.fetching and slot.fetching.retry_at is not None:
        times.append(slot.fetching.retry_at)
    if slot.next:
        times.append(slot.next.until)
    elif slot.restart_at is not None and not slot.live:
        times.append(slot.restart_at)
    return min(times, default=None)


def finished(slot: Slot) -> bool:
    """Say whether a removed slot has nothing left to wait for."""
    return slot.wanted is None and not (slot.live or slot.next or slot.draining or slot.good)


def report(slot: Slot, *, endpoint: str) -> RunningDeployment:
    """Return the slot in the words of the reported state."""
    live = slot.live is not None
    if slot.wanted is None:
        build = slot.live.build if slot.live else None
        return _running(slot.name, build and build.release, build, "stopped", "", "")
    if slot.rejected and slot.rejected.release == slot.wanted:
        good = slot.good.release if slot.good and live else None
        rest = f"; {good.bundle} {good.version} goes on" if good else ""
        where = endpoint if live else ""
        return _running(slot.name, slot.wanted, None, "failed", where, slot.rejected.reason + rest)
    if slot.good and slot.good.release == slot.wanted:
        phase = "live" if live else "failed" if slot.trouble else "starting"
        return _running(slot.name, slot.wanted, slot.good, phase, endpoint if live else "", slot.trouble)
    phase = "starting" if slot.next and slot.next.build.release == slot.wanted else "fetching"
    trouble = slot.fetching.trouble if slot.fetching else ""
    return _running(slot.name, slot.wanted, None, phase, endpoint if live else "", trouble)


def _running(
    name: str, release: Optional[Release], build: Optional[Build], phase: str, endpoint: str, detail: str
) -> RunningDeployment:
    return RunningDeployment(
        name,
        release.bundle if release else "",
        release.version if release else "",
        build.digest if build else "",
        phase,
        endpoint,
        detail[:1024],
    )
