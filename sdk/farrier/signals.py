"""Being told to stop: SIGTERM and Ctrl-C as an event, for commands that serve until then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """Yield an event that a stopping signal sets; the handlers of before return afterwards. Main thread only."""
    told = threading.Event()
    previous = {number: signal.signal(number, lambda *_: told.set()) for number in STOPPING}
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
