"""The way to a broker: its URL, and a paho client set up the same for all who publish or subscribe."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from farrier_contracts.errors import FarrierError, UsageError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0
RECONNECT_FIRST_S = 1
RECONNECT_MOST_S = 30
RETRY_FIRST_S = 0.2


@dataclass(frozen=True)
class Broker:
    """Where a broker listens, and who asks."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        """Return the URL without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"


def parse_broker(url: str) -> Broker:
    """Read `mqtt://[user:password@]host[:port]` (or mqtts://, over TLS); raises UsageError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UsageError(
            f"the broker {url!r:.200} is not understood; write mqtt://host:1883 or mqtts://host:8883"
        )
    return Broker(
        parts.hostname,
        port or PORTS[parts.scheme],
        parts.scheme == "mqtts",
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


def new_client(
    broker: Broker, client_id: str, *, clean_session: bool = True, manual_ack: bool = False
) -> Client:
    """Return a client that is not connected yet. MQTT 3.1.1, which every broker speaks."""
    from paho.mqtt.client import Client, MQTTv311
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=clean_session,
        protocol=MQTTv311,
        manual_ack=manual_ack,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.reconnect_delay_set(RECONNECT_FIRST_S, RECONNECT_MOST_S)
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.tls:
        client.tls_set()
    return client


def connect(client: Client, broker: Broker, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Open the connection, trying again with growing pauses; raises FarrierError after `timeout_s`."""
    _keep_trying(
        lambda: client.connect(broker.host, broker.port, keepalive=KEEPALIVE_S), broker, timeout_s=timeout_s
    )


def await_listener(broker: Broker, *, timeout_s: float) -> None:
    """Wait until something listens at the broker's address; raises FarrierError after `timeout_s`."""
    where = (broker.host, broker.port)
    _keep_trying(
        lambda: socket.create_connection(where, CONNECT_TIMEOUT_S).close(), broker, timeout_s=timeout_s
    )


def _keep_trying(attempt: Callable[[], object], broker: Broker, *, timeout_s: float) -> None:
    deadline, pause = time.monotonic() + timeout_s, RETRY_FIRST_S
    while True:
        try:
            attempt()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() + pause > deadline:
            raise FarrierError(
                f"no broker answers at {broker} ({reason}); start it or give another address"
            ) from None
        time.sleep(pause * random.uniform(0.75, 1.25))
        pause = min(pause * 2, RECONNECT_MOST_S)
