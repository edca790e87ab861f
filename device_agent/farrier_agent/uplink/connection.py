"""One MQTT session, from connecting to its end, driven by the caller's event loop.

Looking up, connecting and the TLS handshake may take seconds: they happen in a thread that lives no longer. All
the rest happens inside `on_ready`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Tuple

from farrier_contracts.errors import InputError
from farrier_contracts.wire.payload import PAYLOAD_MAX_BYTES

from ..config import Broker
from .rules import Settings

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

PASSWORD_MAX_BYTES = 4096


@dataclass
class Happened:
    """What a session brought since the last look."""

    connected: bool = False
    ended: str = ""  # why, in words
    delivered: List[int] = field(default_factory=list)  # message ids that the broker has
    messages: List[Tuple[str, bytes]] = field(default_factory=list)


class Connection:
    """A clean MQTT 3.1.1 session with a last will."""

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        will: Tuple[str, bytes],
        settings: Settings,
        wake: Callable[[], None],
    ) -> None:
        """Prepare a session; raises InputError where a certificate or password file cannot be read."""
        import paho.mqtt.client as mqtt  # a third of the agent's imports: workers start meanwhile
        from paho.mqtt.enums import CallbackAPIVersion

        self._broker, self._settings, self._wake = broker, settings, wake
        self._happened = Happened()
        self._opened = threading.Event()
        self._trouble = ""
        self._over = False
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=True, protocol=mqtt.MQTTv311
        )
        client.connect_timeout = settings.connect_limit_s
        client.will_set(will[0], will[1], qos=1, retain=True)
        _set_credentials(client, broker)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_register_write = lambda *_: None  # or publishing would write, and block, at once
        self._client = client

    def open(self) -> None:
        """Begin to connect."""
        threading.Thread(target=self._connect, name="mqtt-connect", daemon=True).start()

    @property
    def socket(self) -> Optional[socket.socket]:
        """The socket to watch, None while connecting or after the end."""
        if not self._opened.is_set() or self._over:
            return None
        return self._client.socket()  # type: ignore[return-value]

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait to be written."""
        return self._client.want_write()

    def subscribe(self, topics: List[str]) -> None:
        """Subscribe with QoS 1."""
        self._client.subscribe([(topic, 1) for topic in topics])

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        """Queue a message with QoS 1 and return its id."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def advance(self, *, readable: bool, writable: bool) -> Happened:
        """Do what the socket is ready for, and return what happened since the last call."""
        if self._opened.is_set() and not self._over:
            if self._trouble:
                self._end(self._trouble)
            else:
                self._transfer(readable, writable)
        happened, self._happened = self._happened, Happened()
        return happened

    def leave(self) -> None:
        """Queue the farewell: the broker then does not publish the will."""
        self._client.disconnect()

    def close(self) -> None:
        """Cut the connection at once."""
        self._over = True
        if self._opened.is_set():
            self._close_socket()

    def _connect(self) -> None:
        try:
            self._client.connect(*self._broker.address, keepalive=self._settings.keepalive_s)
        except (OSError, ValueError) as error:
            self._trouble = _in_words(error)
        self._opened.set()
        if self._over:
            self._close_socket()
        else:
            self._wake()

    def _transfer(self, readable: bool, writable: bool) -> None:
        client = self._client
        if readable:
            client.loop_read()
            while (pending := getattr(client.socket(), "pending", None)) and pending():
                client.loop_read()
        if writable or client.want_write():
            client.loop_write()
        client.loop_misc()
        if client.socket() is None and not self._over:
            self._end("the connection was closed")

    def _end(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._happened.ended = self._happened.ended or why
            self._close_socket()

    def _close_socket(self) -> None:
        client, self._client.on_disconnect = self._client, None
        with contextlib.suppress(OSError, ValueError):
            sock = client.socket()
            if sock is not None:
                sock.close()

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._end(f"the broker refused: {reason}")
        else:
            self._happened.connected = True

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._end(f"the connection was lost ({reason})" if reason.is_failure else "disconnected")

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        if len(message.payload) <= PAYLOAD_MAX_BYTES:
            self._happened.messages.append((message.topic, bytes(message.payload)))

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        self._happened.delivered.append(mid)


def _set_credentials(client: mqtt.Client, broker: Broker) -> None:
    password = None
    try:
        if broker.password_file:
            with open(broker.password_file, encoding="utf-8") as file:  # noqa: PTH123 - a plain path
                password = file.read(PASSWORD_MAX_BYTES).strip()
        if broker.tls:
            client.tls_set(
                ca_certs=broker.ca or None,
                certfile=broker.certificate or None,
                keyfile=broker.key or None,
            )
    except (OSError, ValueError) as error:
        raise InputError(f"the broker's password or certificate files cannot be used: {error}") from None
    if broker.username:
        client.username_pw_set(broker.username, password)


def _in_words(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return os.strerror(number).lower() if number and number > 0 and type(error) is not OSError else str(error)
