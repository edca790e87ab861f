"""The fleet store: what devices reported, stored once and for good, behind a URL."""

from .database import Store, open_store
from .queries import balance, current_desired, desired_before, device, devices, events, latest, series, totals
from .records import Balance, Bucket, Device, Event, Reading, Totals

__all__ = [
    "Balance",
    "Bucket",
    "Device",
    "Event",
    "Reading",
    "Store",
    "Totals",
    "balance",
    "current_desired",
    "desired_before",
    "device",
    "devices",
    "events",
    "latest",
    "open_store",
    "series",
    "totals",
]
