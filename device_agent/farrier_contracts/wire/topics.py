"""The topics of `farrier/v1/{fleet}/{device}/...`: how they are made, and read back from hostile input.

Topics carry no secrets, versions or user text; ids are lower-case letters, digits and inner hyphens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError

ROOT = "farrier/v1"
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")

# kind -> whether the broker keeps the last message; every kind is published with QoS 1
RETAINED = {
    "state": True,
    "birth": True,
    "reported": True,
    "desired": True,
    "cmd": True,
    "t": False,
    "ack": False,
    "e": False,
}
WITH_DETAIL = ("t", "ack", "e", "cmd")


@dataclass(frozen=True)
class Topic:
    """One topic of one device. `detail` is the stream of `t` and `ack`, the kind of `e`, `type/id` of `cmd`."""

    fleet: str
    device: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        """Return the topic as MQTT writes it."""
        tail = f"/{self.detail}" if self.detail else ""
        return f"{ROOT}/{self.fleet}/{self.device}/{self.kind}{tail}"

    @property
    def retained(self) -> bool:
        """Say whether the broker keeps the last message."""
        return RETAINED[self.kind]


def parse(topic: str) -> Topic | None:
    """Return the Topic, or None for anything that is not one of ours in every respect."""
    levels = topic.split("/")
    if len(levels) < 5 or "/".join(levels[:2]) != ROOT:
        return None
    fleet, device, kind, *detail = levels[2:]
    if kind not in RETAINED or bool(detail) != (kind in WITH_DETAIL):
        return None
    if len(detail) > (2 if kind == "cmd" else 1):
        return None
    if not all(_ID.fullmatch(level) for level in (fleet, device, *detail)):
        return None
    return Topic(fleet, device, kind, "/".join(detail))


def subscription(fleet: str, kind: str, *, device: str = "+") -> str:
    """Return the MQTT filter for one kind of message of one device or of all devices in a fleet."""
    tail = {"t": "/+", "ack": "/+", "e": "/+", "cmd": "/+/+"}.get(kind, "")
    return f"{ROOT}/{fleet}/{device}/{kind}{tail}"


def checked_id(value: str, what: str) -> str:
    """Return `value` if it may stand in a topic; raises InputError with a sentence about `what`."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InputError(
            f"{what} must be lower-case letters, digits and inner hyphens, at most 64 characters, not {value!r:.80}"
        )
    return value
