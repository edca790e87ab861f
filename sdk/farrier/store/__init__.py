"""The fleet store: what devices reported, stored once and for good, behind a URL."""

from .database import Store, open_store, store_file
from .queries import (
    balance,
    columns,
    current_desired,
    desired_before,
    device,
    devices,
    events,
    first_time,
    interval_ns,
    latest,
    series,
    totals,
)
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
    "columns",
    "current_desired",
    "desired_before",
    "device",
    "devices",
    "events",
    "first_time",
    "interval_ns",
    "latest",
    "open_store",
    "series",
    "store_file",
    "totals",
]
