"""Events that wait for the broker: what happened on the device, kept until it was delivered."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Mapping, NamedTuple

from .messages import pack

Publish = Callable[[str, bytes], int]  # topic and payload, gives the message's id


class _Event(NamedTuple):
    number: int
    topic: str
    payload: bytes


class Events:
    """A bounded queue; when it is full the oldest events go."""

    def __init__(self, boot: str, *, limit: int) -> None:
        """`boot` and a running number make each event one of a kind, so that a repetition can be told."""
        self._boot = boot
        self._waiting: Deque[_Event] = deque(maxlen=limit)
        self._under_way: Dict[int, int] = {}  # message id -> event number
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, topic: str, document: Mapping[str, Any]) -> None:
        """Keep an event, with the time of both clocks."""
        self._count += 1
        body = {
            "v": 1,
            "boot": self._boot,
            "seq": self._count,
            "mono_ns": time.monotonic_ns(),
            "wall_ns": time.time_ns(),
            **document,
        }
        self._waiting.append(_Event(self._count, topic, pack(body)))

    def send(self, publish: Publish) -> None:
        """Publish every event that is not under way."""
        under_way = set(self._under_way.values())
        for event in self._waiting:
            if event.number not in under_way:
                self._under_way[publish(event.topic, event.payload)] = event.number

    def rewind(self) -> None:
        """Forget what was under way: a new connection."""
        self._under_way = {}

    def delivered(self, mid: int) -> None:
        """Forget the event of a message that the broker has."""
        number = self._under_way.pop(mid, None)
        if number is not None:
            self._waiting = deque((e for e in self._waiting if e.number != number), self._waiting.maxlen)
