from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from farrier_agent.uplink import rules
from farrier_agent.uplink.rules import Settings, Window
from farrier_contracts.wire.telemetry import advance

SETTINGS = Settings()


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_reconnect_delays_are_spread_and_bounded(attempt: int, chance: float) -> None:
    delay = rules.reconnect_delay(attempt, chance=chance, settings=SETTINGS)
    assert SETTINGS.reconnect_first_s / 2 <= delay <= SETTINGS.reconnect_max_s
    if attempt > 1:
        earlier = rules.reconnect_delay(attempt - 1, chance=chance, settings=SETTINGS)
        assert delay >= earlier


def test_an_acknowledgement_that_stays_away_rewinds_later_and_later() -> None:
    window, now, waits = Window(), 0.0, []
    for _ in range(6):
        window = rules.sent(window, 9, now=now)
        due = rules.ack_deadline(window, SETTINGS)
        assert due is not None
        assert rules.timed_out(window, now=due - 0.01, settings=SETTINGS) == window
        waits.append(due - now)
        now = due
        window = rules.timed_out(window, now=now, settings=SETTINGS)
        assert (window.sent, window.ends) == (-1, ())
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert max(waits) == SETTINGS.ack_max_s
    window = rules.acknowledged(rules.sent(window, 9, now=now), 9, now=now)
    assert (window.acknowledged, window.timeouts, rules.ack_deadline(window, SETTINGS)) == (9, 0, None)


def test_batches_wait_for_company_but_not_for_ever() -> None:
    def go(available: int, waited: float, at_once: bool = False) -> bool:
        return rules.full_enough(
            available, waited_s=waited, batch_points=4, batch_wait_s=1.0, at_once=at_once
        )

    assert not go(3, 0.5)
    assert go(4, 0.0)
    assert go(1, 1.0)
    assert go(1, 0.0, at_once=True)
    assert not go(0, 9.0, at_once=True)


@hypothesis_settings(deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 4))
def test_every_held_point_arrives_over_a_line_that_loses_messages(
    data: st.DataObject, produced: int, room: int
) -> None:
    dropped = data.draw(st.sets(st.integers(0, produced - 1)))
    held = [n for n in range(produced) if n not in dropped]
    window, now = Window(), 0.0
    stored: set[int] = set()
    reached = -1
    losses = data.draw(st.lists(st.booleans(), max_size=30))
    for _ in range(2000):
        now += 0.5
        window = rules.timed_out(window, now=now, settings=SETTINGS)
        low = next((n for n in held if n > window.acknowledged), produced)
        if low == produced:
            break
        first = rules.first_to_send(window, low=low, produced=produced, in_flight=room)
        assert len(window.ends) <= room
        if first is None:
            continue
        following = [n for n in held if n >= first]
        batch = [n for i, n in enumerate(following[:3]) if n == following[0] + i]
        if not batch or not rules.may_skip(window, wanted=first, found=batch[0]):
            continue
        window = rules.sent(window, batch[-1], now=now)
        if losses and losses.pop():
            continue
        stored.update(batch)
        reached = advance(reached, batch[0], batch[-1], low)
        if not (losses and losses.pop()) and reached >= 0:
            window = rules.acknowledged(window, reached, now=now)
    assert stored >= set(held)
