"""The server: connections on listening sockets that somebody else opened, their time limits, and draining."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Callable, List, Sequence, Set

from .connection import Connection
from .http import Request, Response

Respond = Callable[[Response], None]
Handle = Callable[[Request, Respond], None]

RECEIVE_BYTES = 256 << 10
BACKLOG = 256  # connections that the kernel may hold for us
ACCEPT_PAUSE_S = 0.1  # where this process has no file descriptor left for another connection


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the local API."""

    max_body_bytes: int = 64 << 20  # of one request, also when inflated
    max_held_bytes: int = 256 << 20  # of all bodies that are being read or answered
    max_head_bytes: int = 32 << 10  # request line and headers
    max_connections: int = 512
    head_limit_s: float = 10.0
    body_limit_s: float = 60.0
    write_limit_s: float = 30.0  # without the client reading anything
    idle_limit_s: float = 120.0  # between two requests
    sweep_s: float = 0.5  # how often the limits above are looked at


class Server:
    """Serves one handler; all methods belong to the event loop's thread.

    `handle(request, respond)` must call `respond` exactly once, now or later.
    """

    def __init__(self, handle: Handle, *, settings: ServerSettings = ServerSettings()) -> None:
        self.settings = settings
        self.handle = handle
        self.loop = asyncio.get_running_loop()
        self.draining = False
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))  # what arrives is parsed at once: one serves all
        self._connections: Set[Connection] = set()
        self._held = 0
        self._listeners: List[socket.socket] = []
        self._opening: Set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._sweep = self.loop.call_later(settings.sweep_s, self._sweep_limits)

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Start to accept on bound sockets, TCP or Unix; they are closed here when it drains.

        asyncio's own servers are not used: one that closes drops what it has accepted in the same turn of the loop.
        """
        for listening in sockets:
            listening.setblocking(False)
            listening.listen(BACKLOG)
            self._listeners.append(listening)
            self.loop.add_reader(listening, self._accept, listening)

    async def drain(self, within_s: float) -> None:
        """Stop accepting, answer every request that arrives in time, and close each connection after its answer."""
        self.draining = True
        for listening in self._listeners:
            self.loop.remove_reader(listening)
            listening.close()
        self._listeners.clear()
        if self._opening:
            await asyncio.wait(self._opening)
        if self._connections:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), within_s)
            except asyncio.TimeoutError:
                await self._abort_all()
        self._sweep.cancel()

    async def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        if self._connections:
            await self._empty.wait()  # aborted transports report their end in the loop's next turn

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    # for connections

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False where there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.settings.max_connections

    def forget(self, connection: Connection) -> None:
        """Count a closed connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def hold(self, size: int) -> bool:
        """Count received bytes; False where too many are held."""
        self._held += size
        return self._held <= self.settings.max_held_bytes

    def release(self, size: int) -> None:
        """Count bytes that are no longer held."""
        self._held -= size

    def _accept(self, listening: socket.socket) -> None:
        # One at a time: while more wait, the loop comes back, and other workers on this socket get their share.
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self.loop.remove_reader(listening)
            self.loop.call_later(ACCEPT_PAUSE_S, self._accept_again, listening)
            return
        accepted.setblocking(False)
        opening = self.loop.create_task(self._open(accepted))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self.draining:
            self.loop.add_reader(listening, self._accept, listening)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), accepted)
        except OSError:
            accepted.close()

    def _sweep_limits(self) -> None:
        now = self.loop.time()
        for connection in list(self._connections):
            if now > connection.deadline:
                connection.expire()
        self._sweep = self.loop.call_later(self.settings.sweep_s, self._sweep_limits)
