"""The connection to the fleet: presence, documents, events and telemetry over MQTT 3.1.1."""

from __future__ import annotations

from .uplink import Command, DesiredReceived, Uplink

__all__ = ["Command", "DesiredReceived", "Uplink"]
