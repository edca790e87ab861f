"""What becomes of one deployment, as pure rules: a slot, an event and the time give the next slot and what to do.

A slot serves at most one build at a time. A new release is fetched, started, checked by its worker and only then
handed the requests; the one before goes on serving until that moment, and serves again if the new one cannot.

    Wanted -> Fetch -> fetched -> Start -> ready -> Serve -> serving -> Drain the old one, Remember
"""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional

from .model import (
    Action,
    Build,
    Building,
    Drain,
    Event,
    Fetch,
    Fetched,
    FetchFailed,
    Fetching,
    Gone,
    Hung,
    Kill,
    Limits,
    Ready,
    Rejected,
    Release,
    Remember,
    Run,
    Serve,
    Serving,
    Slot,
    Start,
    Step,
    Tell,
    Tick,
    Want,
)


def step(slot: Slot, event: Event, now: float, *, limits: Limits = Limits()) -> Step:
    """Return the slot after an event at monotonic time `now` in seconds, and what to do, in order."""
    handlers = {
        Want: _want,
        Fetched: _fetched,
        FetchFailed: _fetch_failed,
        Building: _building,
        Ready: _ready,
        Serving: _serving,
        Gone: _gone,
        Hung: _hung,
        Tick: _tick,
    }
    slot, actions = handlers[type(event)](slot, event, now, limits)
    slot, more = _settle(slot, now, limits)
    return slot, actions + more


def _want(slot: Slot, event: Want, now: float, limits: Limits) -> Step:
    release = event.release
    slot = replace(slot, wanted=release, rejected=None)
    if slot.fetching and (slot.fetching.release != release or slot.fetching.retry_at is not None):
        slot = replace(slot, fetching=None)
    actions: List[Action] = [Remember()]
    if slot.next and (release is None or slot.next.build.release not in (release, _release(slot.good))):
        actions.append(Kill(slot.next.worker))
        slot = replace(slot, next=None)
    if release is None:
        if slot.live:
            actions.append(Drain(slot.live.worker))
            slot = _draining(slot, slot.live.worker, now + limits.drain_s)
        slot = replace(slot, live=None, good=None, previous=None, restart_at=None, crashes=(), trouble="")
    return slot, actions


def _fetched(slot: Slot, event: Fetched, now: float, limits: Limits) -> Step:
    if slot.fetching is None or slot.fetching.release != event.release:
        return slot, []
    if slot.good == Build(event.release, event.digest):  # what a damaged store lacked is back
        again = slot.restart_at and now
        return replace(slot, fetching=None, restart_at=again), []
    return replace(slot, fetching=Fetching(event.release, event.digest)), []


def _fetch_failed(slot: Slot, event: FetchFailed, now: float, limits: Limits) -> Step:
    if slot.fetching is None or slot.fetching.release != event.release:
        return slot, []
    if event.for_good:
        return _reject(replace(slot, fetching=None), event.release, event.reason)
    attempts = slot.fetching.attempts + 1
    wait = min(limits.fetch_first_s * 2 ** min(attempts - 1, 30), limits.fetch_max_s)
    return replace(slot, fetching=Fetching(event.release, "", attempts, now + wait, event.reason)), []


def _building(slot: Slot, event: Building, now: float, limits: Limits) -> Step:
    run = slot.next
    if run is None or run.worker != event.worker or run.stage != "starting" or run.given_s > limits.start_s:
        return slot, []  # once for each run
    longer = replace(run, until=run.until + event.seconds, given_s=run.given_s + event.seconds)
    return replace(slot, next=longer), []


def _ready(slot: Slot, event: Ready, now: float, limits: Limits) -> Step:
    if slot.next is None or slot.next.worker != event.worker or slot.next.stage != "starting":
        return slot, []
    return replace(slot, next=replace(slot.next, stage="handover")), [Serve(event.worker)]


def _serving(slot: Slot, event: Serving, now: float, limits: Limits) -> Step:
    new = slot.next
    if new is None or new.worker != event.worker or new.stage != "handover":
        return slot, []
    actions: List[Action] = []
    if slot.live:
        actions.append(Drain(slot.live.worker))
        slot = _draining(slot, slot.live.worker, now + limits.drain_s)
    slot = replace(slot, next=None, live=replace(new, stage="serving"), restart_at=None, trouble="")
    if new.build != slot.good:
        slot = replace(slot, previous=slot.good, good=new.build, crashes=(), restarts=0)
        release = new.build.release
        actions += [Remember(), Tell("swap", f"{release.bundle} {release.version} is live")]
    return slot, actions


def _gone(slot: Slot, event: Gone, now: float, limits: Limits) -> Step:
    slot = replace(slot, draining=tuple(d for d in slot.draining if d[0] != event.worker))
    if slot.next and slot.next.worker == event.worker:
        build, slot = slot.next.build, replace(slot, next=None)
        if build != slot.good:
            return _reject(slot, build.release, event.reason)
        if event.innocent:
            return replace(slot, restart_at=now + limits.restart_max_s / 10, trouble=event.reason), []
        return _crashed(slot, event.reason, now, limits)
    if slot.live and slot.live.worker == event.worker:
        return _crashed(replace(slot, live=None), event.reason, now, limits)
    return slot, []


def _hung(slot: Slot, event: Hung, now: float, limits: Limits) -> Step:
    if slot.live is None or slot.live.worker != event.worker:
        return slot, []
    slot, actions = _crashed(replace(slot, live=None), "it hung and was killed", now, limits)
    return slot, [Kill(event.worker), *actions]


def _tick(slot: Slot, event: Tick, now: float, limits: Limits) -> Step:
    actions: List[Action] = [Kill(worker) for worker, until in slot.draining if now >= until]
    slot = replace(slot, draining=tuple(d for d in slot.draining if now < d[1]))
    if slot.fetching and slot.fetching.retry_at is not None and now >= slot.fetching.retry_at:
        slot = replace(slot, fetching=replace(slot.fetching, retry_at=None))
        actions.append(Fetch(slot.fetching.release))  # type: ignore[union-attr]
    if slot.next and now >= slot.next.until:
        late = slot.next.worker
        slot, more = _gone(slot, Gone(late, f"it was not ready within {slot.next.given_s:g} s"), now, limits)
        actions += [Kill(late), *more]
    return slot, actions


def _crashed(slot: Slot, reason: str, now: float, limits: Limits) -> Step:
    crashes = (*(at for at in slot.crashes if now - at < limits.crash_window_s), now)
    restarts = slot.restarts + 1 if len(crashes) > 1 else 1
    actions: List[Action] = [Tell("crash", reason)]
    slot = replace(slot, trouble=reason)
    if len(crashes) >= limits.crashes and slot.previous and slot.good:
        bad, back = slot.good.release, slot.previous
        sentence = (
            f"{bad.bundle} {bad.version} ended {len(crashes)} times within {limits.crash_window_s:g} s ({reason}): "
            f"back to {back.release.bundle} {back.release.version}"
        )
        slot = replace(slot, good=back, previous=None, rejected=Rejected(bad, sentence), crashes=())
        slot = replace(slot, restarts=0, restart_at=now, trouble="")
        return slot, [*actions, Remember(), Tell("rollback", sentence)]
    release = _release(slot.good)
    if restarts % limits.crashes == 0 and release and release == slot.wanted and not slot.fetching:
        slot = replace(slot, fetching=Fetching(release))  # a part may be damaged: check and mend it
        actions.append(Fetch(release))
    wait = min(limits.restart_first_s * 2 ** min(restarts - 1, 30), limits.restart_max_s)
    return replace(slot, crashes=crashes, restarts=restarts, restart_at=now + wait), actions


def _reject(slot: Slot, release: Release, reason: str) -> Step:
    return replace(slot, rejected=Rejected(release, reason)), [Remember(), Tell("refused", reason)]


def _start(slot: Slot, build: Build, now: float, limits: Limits) -> Step:
    run = Run(slot.workers, build, "starting", now + limits.start_s, limits.start_s)
    return replace(slot, next=run, workers=slot.workers + 1), [Start(run.worker, build)]


def _draining(slot: Slot, worker: int, until: float) -> Slot:
    return replace(slot, draining=(*slot.draining, (worker, until)))


def _settle(slot: Slot, now: float, limits: Limits) -> Step:
    """Begin what should be under way and is not."""
    actions: List[Action] = []
    if slot.good and not slot.live and not slot.next and now >= (slot.restart_at or now):
        slot, actions = _start(replace(slot, restart_at=None), slot.good, now, limits)
    if slot.fetching and slot.fetching.digest and not slot.next:
        build = Build(slot.fetching.release, slot.fetching.digest)
        slot, actions = _start(replace(slot, fetching=None), build, now, limits)
    wanted = slot.wanted
    rejected = slot.rejected.release if slot.rejected else None
    arriving = slot.next.build.release if slot.next else None
    if wanted and not slot.fetching and wanted not in (_release(slot.good), rejected, arriving):
        slot = replace(slot, fetching=Fetching(wanted))
        actions = [*actions, Fetch(wanted)]
    return slot, actions


def _release(build: Optional[Build]) -> Optional[Release]:
    return build.release if build else None
