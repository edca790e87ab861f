from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_agent.supervisor import slots
from farrier_agent.supervisor.slots import (
    Build,
    Building,
    Drain,
    Fetch,
    Fetched,
    FetchFailed,
    Gone,
    Hung,
    Kill,
    Limits,
    Ready,
    Release,
    Serve,
    Serving,
    Slot,
    Start,
    Tell,
    Tick,
    Want,
)

ONE, TWO = Release("digits", "1"), Release("digits", "2")
FIRST, SECOND = Build(ONE, "d1"), Build(TWO, "d2")
LIMITS = Limits()


def play(slot: Slot, *events: object, now: float = 0.0) -> tuple[Slot, list]:
    actions: list = []
    for event in events:
        slot, more = slots.step(slot, event, now, limits=LIMITS)  # type: ignore[arg-type]
        actions += more
    return slot, actions


def live_slot() -> Slot:
    return play(Slot("a"), Want(ONE), Fetched(ONE, "d1"), Ready(0), Serving(0))[0]


def live_on_second() -> Slot:
    return play(live_slot(), Want(TWO), Fetched(TWO, "d2"), Ready(1), Serving(1), Gone(0, "drained"))[0]


def kinds(actions: list) -> list[str]:
    return [type(a).__name__ + (f":{a.kind}" if isinstance(a, Tell) else "") for a in actions]


def test_from_nothing_to_live() -> None:
    slot, actions = play(Slot("a"), Want(ONE), Fetched(ONE, "d1"), Ready(0), Serving(0))
    assert kinds(actions) == ["Remember", "Fetch", "Start", "Serve", "Remember", "Tell:swap"]
    assert slots.report(slot, endpoint="here").phase == "live"
    assert slots.report(slot, endpoint="here").endpoint == "here"


def test_the_old_one_drains_only_once_the_new_one_serves() -> None:
    slot, before = play(live_slot(), Want(TWO), Fetched(TWO, "d2"), Ready(1))
    assert Drain(0) not in before
    assert slot.live is not None
    assert slot.live.worker == 0
    slot, after = play(slot, Serving(1))
    assert after[0] == Drain(0)
    assert slot.good == SECOND
    assert slot.previous == FIRST


@pytest.mark.parametrize(
    "trouble",
    [
        [FetchFailed(TWO, "it expired", for_good=True)],
        [Fetched(TWO, "d2"), Gone(1, "golden output differs")],
        [Fetched(TWO, "d2"), Ready(1), Gone(1, "killed by signal 11")],
    ],
)
def test_a_new_one_that_cannot_leaves_the_old_one_live(trouble: list) -> None:
    slot, actions = play(live_slot(), Want(TWO), *trouble)
    assert slot.live is not None
    assert slot.live.worker == 0
    assert not any(isinstance(a, (Drain, Kill)) for a in actions)
    told = slots.report(slot, endpoint="here")
    assert (told.phase, told.version, told.endpoint) == ("failed", "2", "here")
    assert "digits 1 goes on" in told.detail
    assert Fetch(TWO) not in play(slot, Tick(), now=1e6)[1]
    assert Fetch(TWO) in play(slot, Want(TWO))[1]  # asked anew


def test_a_slow_start_is_killed_and_refused() -> None:
    slot, _ = play(live_slot(), Want(TWO), Fetched(TWO, "d2"))
    assert slots.deadline(slot) == LIMITS.start_s
    slot, actions = play(slot, Tick(), now=LIMITS.start_s)
    assert kinds(actions) == ["Kill", "Remember", "Tell:refused"]


def test_a_worker_that_builds_an_engine_gets_its_time_once() -> None:
    slot, _ = play(live_slot(), Want(TWO), Fetched(TWO, "d2"))
    slot, actions = play(slot, Building(1, 600.0), Building(1, 600.0), now=10)
    assert not actions
    assert slots.deadline(slot) == LIMITS.start_s + 600
    slot, actions = play(slot, Tick(), now=LIMITS.start_s + 599)
    assert not actions and slot.live is not None
    slot, actions = play(slot, Tick(), now=LIMITS.start_s + 600)
    assert kinds(actions) == ["Kill", "Remember", "Tell:refused"]
    assert "within 660 s" in slots.report(slot, endpoint="here").detail
    other, _ = play(live_slot(), Building(0, 600.0), Building(7, 600.0))
    assert other == live_slot()  # who serves builds nothing


def test_a_good_build_that_cannot_start_any_more_is_fetched_again() -> None:
    slot, now = play(Slot("a", wanted=ONE, good=FIRST), Tick())[0], 0.0  # as after a boot
    for worker in range(LIMITS.crashes):
        assert slot.fetching is None
        slot, actions = play(slot, Gone(worker, "part 'model.onnx' is damaged"), now=now)
        now = slots.deadline(slot) or now
        if worker < LIMITS.crashes - 1:
            slot, _ = play(slot, Tick(), now=now)
    assert Fetch(ONE) in actions
    slot, actions = play(slot, Fetched(ONE, "d1"), now=now - 0.01)  # earlier than the next restart
    assert actions == [Start(LIMITS.crashes, FIRST)]
    slot, _ = play(slot, Ready(LIMITS.crashes), Serving(LIMITS.crashes), now=now)
    assert slots.report(slot, endpoint="here").phase == "live"
    assert slot.fetching is None


def test_a_fetch_without_network_is_tried_again_later_and_later() -> None:
    slot, now, waits = play(Slot("a"), Want(ONE))[0], 0.0, []
    for _ in range(12):
        slot, actions = play(slot, FetchFailed(ONE, "no network", for_good=False), now=now)
        assert actions == []
        due = slots.deadline(slot)
        assert due is not None
        waits.append(due - now)
        now = due
        slot, actions = play(slot, Tick(), now=now)
        assert actions == [Fetch(ONE)]
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert waits[-1] == LIMITS.fetch_max_s


def test_a_crash_restarts_and_a_crash_loop_falls_back() -> None:
    slot, now = live_on_second(), 100.0
    for worker in (1, 2):
        slot, actions = play(slot, Gone(worker, "killed"), now=now)
        assert kinds(actions) == ["Tell:crash"]
        due = slots.deadline(slot)
        assert due is not None
        slot, actions = play(slot, Tick(), Ready(worker + 1), Serving(worker + 1), now=due)
        assert actions[0] == Start(worker + 1, SECOND)
        assert slot.live is not None
        now = due
    slot, actions = play(slot, Gone(3, "killed"), now=now)
    assert kinds(actions) == ["Tell:crash", "Remember", "Tell:rollback", "Start"]
    assert actions[-1] == Start(4, FIRST)
    slot, _ = play(slot, Ready(4), Serving(4), now=now)
    assert slots.report(slot, endpoint="x").phase == "failed"
    assert slot.good == FIRST
    assert slot.live is not None


def test_without_anything_to_fall_back_to_it_is_tried_for_ever_but_slowly() -> None:
    slot, now, waits = live_slot(), 0.0, []
    for worker in range(20):
        slot, _ = play(slot, Gone(worker, "killed"), now=now)
        due = slots.deadline(slot)
        assert due is not None
        waits.append(due - now)
        now = due
        slot, _ = play(slot, Tick(), now=now)
    assert max(waits) > 10
    assert max(waits) <= LIMITS.restart_max_s


def test_a_hang_is_a_crash() -> None:
    slot, actions = play(live_slot(), Hung(0))
    assert kinds(actions) == ["Kill", "Tell:crash"]
    assert play(slot, Gone(0, "killed by signal 9"))[1] == []
    assert Start(1, FIRST) in play(slot, Tick(), now=1.0)[1]


def test_a_boot_starts_what_was_good_before_it_fetches_what_is_wanted() -> None:
    slot, actions = play(Slot("a", wanted=TWO, good=FIRST), Tick())
    assert actions == [Start(0, FIRST), Fetch(TWO)]
    slot, actions = play(slot, Fetched(TWO, "d2"))
    assert actions == []
    slot, actions = play(slot, Ready(0), Serving(0))
    assert actions == [Serve(0), Start(1, SECOND)]


def test_removal_drains_and_finishes() -> None:
    slot, actions = play(live_slot(), Want(None))
    assert kinds(actions) == ["Remember", "Drain"]
    assert not slots.finished(slot)
    assert slots.finished(play(slot, Gone(0, "drained"))[0])
    killed, actions = play(slot, Tick(), now=LIMITS.drain_s)
    assert actions == [Kill(0)]
    assert slots.finished(killed)


releases = st.sampled_from([ONE, TWO, Release("digits", "3"), None])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_happens_what_was_good_serves_in_the_end(data: st.DataObject) -> None:
    """Random wishes, failures, hangs and delays; then calm: the slot settles on the wish or on what was good."""
    slot, now, running = Slot("a"), 0.0, {}
    had_good = False

    def do(event: object) -> None:
        nonlocal slot, had_good
        before = slot
        slot, actions = slots.step(slot, event, now, limits=LIMITS)  # type: ignore[arg-type]
        for action in actions:
            if isinstance(action, Start):
                assert action.worker not in running
                running[action.worker] = "starting"
            elif isinstance(action, Serve):
                running[action.worker] = "serving"
            elif isinstance(action, Drain):
                running[action.worker] = "draining"
            elif isinstance(action, Kill):
                running.pop(action.worker, None)
        if before.live and not slot.live:
            alive = running.get(before.live.worker) == "serving" and not isinstance(event, Gone)
            assert not alive, "a serving worker was let go without a successor"
        had_good = slot.good is not None
        serving = [w for w, s in running.items() if s == "serving"]
        assert len(serving) <= 2  # the old and the new one during a hand-over
        assert not slot.live or running.get(slot.live.worker) == "serving"

    def answer(fail: bool) -> bool:
        if slot.fetching and slot.fetching.retry_at is None and not slot.fetching.digest:
            release = slot.fetching.release
            do(FetchFailed(release, "no", for_good=fail) if fail else Fetched(release, "d" + release.version))
        elif slot.next:
            if fail:
                running.pop(slot.next.worker, None)
                do(Gone(slot.next.worker, "no"))
            else:
                do(Ready(slot.next.worker) if slot.next.stage == "starting" else Serving(slot.next.worker))
        else:
            return False
        return True

    for _ in range(data.draw(st.integers(0, 25))):
        what = data.draw(
            st.sampled_from(["want", "good", "good", "bad", "retry", "build", "crash", "hang", "time"])
        )
        now += data.draw(st.sampled_from([0.0, 0.1, 5.0, 100.0]))
        if what == "want":
            do(Want(data.draw(releases)))
        elif what in ("good", "bad"):
            answer(what == "bad")
        elif what == "retry" and slot.fetching:
            do(FetchFailed(slot.fetching.release, "later", for_good=False))
        elif what == "build" and slot.next:
            do(Building(slot.next.worker, 50.0))
        elif what == "crash" and running:
            worker = data.draw(st.sampled_from(sorted(running)))
            running.pop(worker)
            do(Gone(worker, "crash"))
        elif what == "hang" and slot.live:
            do(Hung(slot.live.worker))
        do(Tick())

    for _ in range(100):  # calm: everything asked for works now
        due = slots.deadline(slot)
        for worker in [w for w, s in running.items() if s == "draining"]:
            running.pop(worker)
            do(Gone(worker, "drained"))
        if not answer(fail=False):
            if due is None:
                break
            now = max(now, due)
            do(Tick())
    else:
        pytest.fail("the slot did not come to rest")
    if slot.wanted is None:
        assert slots.finished(slot)
        assert not running
    elif slot.good:
        assert slot.live is not None
        assert slot.live.build == slot.good
        assert list(running.values()) == ["serving"]
        assert slot.good.release == slot.wanted or slot.rejected
    else:
        assert slot.rejected is not None
    assert replace(slot, workers=0) == replace(slots.step(slot, Tick(), now, limits=LIMITS)[0], workers=0)
