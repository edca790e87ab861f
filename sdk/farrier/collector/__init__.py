"""From devices' messages to the fleet store."""

from .collector import Settings, Summary, collect
from .connection import Broker, connect, new_client, parse_broker

__all__ = ["Broker", "Settings", "Summary", "collect", "connect", "new_client", "parse_broker"]
