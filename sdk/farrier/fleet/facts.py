"""Devices as plain data: what `--json`, the dashboard's API and its pages all show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..store import Device, Store, balance, events
from .metrics import performance, presence

EVENTS_SHOWN = 50


def device_facts(store: Store, device: Device, *, now_ns: int) -> dict[str, Any]:
    """Return one device in a list: presence, deployments, the last half minute's performance, sums of its account."""
    accounts = balance(store, device.id)
    reported = device.reported
    return {
        "fleet": device.fleet,
        "device": device.name,
        "presence": presence(device, now_ns),
        "seen_ns": device.seen_ns,
        "seen_ago_s": max(0.0, (now_ns - device.seen_ns) / 1e9) if device.seen_ns else None,
        "deployments": [vars(each) for each in reported.deployments] if reported else [],
        "desired_version": device.desired.version if device.desired else 0,
        "reported_version": reported.desired_version if reported else 0,
        "performance": asdict(performance(store, device.id, now_ns=now_ns)),
        "balance": {
            "produced": sum(each.produced for each in accounts),
            "received": sum(each.received for each in accounts),
            "ledgered": sum(each.ledgered for each in accounts),
            "duplicates": sum(each.duplicates for each in accounts),
            "missing": sum(each.missing for each in accounts),
            "settled": all(each.settled for each in accounts),
        },
    }


def device_details(store: Store, device: Device, *, now_ns: int) -> dict[str, Any]:
    """Return one device in full: also its birth, desired state, account by stream, and events."""
    return {
        **device_facts(store, device, now_ns=now_ns),
        "boot": device.boot,
        "session": device.session,
        "birth": device.birth,
        "health": dict(device.reported.health) if device.reported else {},
        "desired": device.desired.to_document() if device.desired else None,
        "streams": [
            {**vars(each), "missing": each.missing, "settled": each.settled}
            for each in balance(store, device.id)
        ],
        "events": [vars(each) for each in events(store, device.id, limit=EVENTS_SHOWN)],
    }
