"""When to connect again, and what telemetry to send next: pure rules.

Points are sent in batches ahead of the fleet's cumulative acknowledgement, a bounded number of batches at a time.
Where the acknowledgement does not come, sending goes back to the first number that is not acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple


@dataclass(frozen=True)
class Settings:
    """Limits of the uplink, times in seconds."""

    reconnect_first_s: float = 0.5  # upper end of the first wait, doubled each time
    reconnect_max_s: float = 60.0
    connect_limit_s: float = 10.0  # name look-up, TCP and TLS
    connack_limit_s: float = 10.0
    keepalive_s: int = 30
    in_flight: int = 4  # batches of a live stream
    history_in_flight: int = 1  # batches of a stream of an earlier boot
    ack_first_s: float = 5.0  # wait for an acknowledgement, doubled each time it does not come
    ack_max_s: float = 60.0
    statement_interval_s: float = 60.0  # how often a reported state is sent for its counts alone
    flush_s: float = 5.0  # how long a clean end waits for the last acknowledgements
    farewell_s: float = 2.0  # and then for the broker to take the last documents
    statement_ranges: int = (
        1500  # statements and their ranges in one reported state, to stay below its size limit
    )
    events: int = 256  # kept for a broker that is away; the oldest go


def reconnect_delay(attempt: int, *, chance: float, settings: Settings) -> float:
    """Return the seconds to wait before attempt 1, 2...: doubling, spread by `chance` (0 to 1) over the upper half."""
    longest = min(settings.reconnect_first_s * 2 ** min(attempt - 1, 30), settings.reconnect_max_s)
    return longest * (0.5 + 0.5 * chance)


@dataclass(frozen=True)
class Window:
    """What of one stream is under way. `ends` are the last numbers of the batches that are not acknowledged."""

    acknowledged: int = -1
    sent: int = -1
    ends: Tuple[int, ...] = ()
    since: float = 0.0  # monotonic seconds of the last progress
    timeouts: int = 0
    waiting_since: Optional[float] = None  # when the oldest unsent point was first seen


def sent(window: Window, last: int, *, now: float) -> Window:
    """Return the window after a batch that ends with number `last` was sent."""
    since = window.since if window.ends else now
    return replace(window, sent=last, ends=(*window.ends, last), since=since, waiting_since=None)


def waiting(window: Window, *, since: float) -> Window:
    """Return the window of a stream whose next points wait for more to make a batch."""
    return replace(window, waiting_since=since)


def acknowledged(window: Window, number: int, *, now: float) -> Window:
    """Return the window after an acknowledgement; one that brings nothing new changes nothing."""
    if number <= window.acknowledged:
        return window
    ends = tuple(end for end in window.ends if end > number)
    return replace(
        window, acknowledged=number, sent=max(window.sent, number), ends=ends, since=now, timeouts=0
    )


def rewound(window: Window) -> Window:
    """Return the window of a new connection: nothing is under way."""
    return replace(window, sent=window.acknowledged, ends=(), timeouts=0)


def ack_deadline(window: Window, settings: Settings) -> Optional[float]:
    """Return when the acknowledgement is given up, None where none is waited for."""
    if not window.ends:
        return None
    return window.since + min(settings.ack_first_s * 2 ** min(window.timeouts, 30), settings.ack_max_s)


def timed_out(window: Window, *, now: float, settings: Settings) -> Window:
    """Return the window, gone back to the acknowledged number where the acknowledgement did not come in time."""
    deadline = ack_deadline(window, settings)
    if deadline is None or now < deadline:
        return window
    return replace(window, sent=window.acknowledged, ends=(), timeouts=window.timeouts + 1)


def first_to_send(window: Window, *, low: int, produced: int, in_flight: int) -> Optional[int]:
    """Return the number that the next batch begins with, None where there is nothing or no room for it."""
    first = max(window.sent + 1, low)
    return first if first < produced and len(window.ends) < in_flight else None


def may_skip(window: Window, *, wanted: int, found: int) -> bool:
    """Say whether a batch may begin at `found` though `wanted` came next (numbers between were dropped).

    Only once everything before is acknowledged does the batch's low mark tell the fleet not to wait for them.
    """
    return found == wanted or not window.ends


def full_enough(
    available: int, *, waited_s: float, batch_points: int, batch_wait_s: float, at_once: bool
) -> bool:
    """Say whether a batch of `available` points goes now rather than waiting for more."""
    return available > 0 and (at_once or available >= batch_points or waited_s >= batch_wait_s)
