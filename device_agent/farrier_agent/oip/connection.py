"""One client: bytes in, requests to the handler, answers out, in the order of the requests."""

# ruff: noqa: D102 - the callbacks are asyncio's and httptools', whose documentation says when they are called

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Union, cast

import httptools

from farrier_contracts.errors import InputError

from .http import Request, Response, refusal, whole_number

if TYPE_CHECKING:
    from .server import Server

PIPELINE_LIMIT = 16  # requests read ahead of their answers
LINGER_S = 2.0  # reading on after a refusal, so that the client sees it instead of a reset
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection; the server's sweep calls `expire` when `deadline` is over."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.settings
        self._now = server.loop.time
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast(asyncio.Transport, None)
        self._backlog: Deque[Union[Request, Response]] = deque()
        self._busy = False  # a request is with the handler
        self._pumping = False
        self._blocked = False  # the client does not read what we write
        self._lingering = False  # a refusal is due or sent: what still arrives is thrown away
        self._ended = False  # nothing may be written any more
        self._half_closed = False  # the client sends no more
        self._in_head = True
        self._head_bytes = 0  # of the current head, as far as the parser has handed it out
        self._unparsed_bytes = 0  # fed since then, still inside the parser
        self._held = 0  # bytes of bodies, counted by the server too
        self._clear()
        self.deadline = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = self._now() + self._limits.head_limit_s
        if not self._server.admit(self):
            self._refuse(refusal(503, "too many connections: close some or try again later"))

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._release(self._held)
        self._server.forget(self)
        self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._lingering:
            return
        self._unparsed_bytes += nbytes
        try:
            self._parser.feed_data(self._server.buffer[:nbytes])  # hands out copies
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(refusal(400, "this is not a request of HTTP/1.1 that this server knows"))
        if self._in_head and self._unparsed_bytes > nbytes:  # one line that goes on for several reads
            self._check_head(self._unparsed_bytes)
        self._pump()

    def eof_received(self) -> bool:
        self._half_closed = True
        return self._busy or bool(self._backlog)  # a client may close its side and still wait for answers

    def pause_writing(self) -> None:
        self._blocked = True
        self.deadline = self._now() + self._limits.write_limit_s
        self._flow()

    def resume_writing(self) -> None:
        self._blocked = False
        self.deadline = self._now() + self._limits.idle_limit_s
        self._flow()
        self._pump()

    def expire(self) -> None:
        """End a connection whose time is up: with a sentence where it was in the middle of a request."""
        if self._lingering or self._blocked:
            self._transport.abort()
        elif self._received or self._head_bytes:
            self._refuse(refusal(408, "the request took too long to arrive"))
            self._pump()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close whatever is on its way."""
        self._transport.abort()

    # the parser's callbacks

    def on_message_begin(self) -> None:
        self._received = True
        self._head_bytes = 0
        self.deadline = self._now() + self._limits.head_limit_s

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))
        self._unparsed_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        self._unparsed_bytes = 0
        if not self._lingering:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = self._unparsed_bytes = 0
        if self._lingering:
            return None
        self.deadline = self._now() + self._limits.body_limit_s
        try:
            length = whole_number(self._headers.get(b"content-length")) or 0
        except InputError as error:
            return self._refuse(refusal(400, str(error)))
        if length > self._limits.max_body_bytes:
            return self._refuse_body()
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._busy:
            self._transport.write(_CONTINUE)
        return None

    def on_body(self, body: bytes) -> None:
        if self._lingering:
            return
        self._body.append(body)
        self._size += len(body)
        self._held += len(body)
        has_room = self._server.hold(len(body))
        if self._size > self._limits.max_body_bytes:
            self._refuse_body()
        elif not has_room:
            self._refuse(refusal(503, "the server holds too many request bodies already: try again later"))

    def on_message_complete(self) -> None:
        if not self._lingering:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            method = self._parser.get_method().decode("ascii", "replace")
            keep_alive = self._parser.should_keep_alive()
            target = self._url.decode("latin-1")
            self._backlog.append(Request(method, target, self._headers, body, keep_alive))
        self._clear()
        self._in_head = True
        self._unparsed_bytes = 0
        self.deadline = math.inf

    # from here on: ours

    def _clear(self) -> None:
        self._url = b""
        self._headers: Dict[bytes, bytes] = {}
        self._body: List[bytes] = []
        self._size = 0
        self._received = False

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        self._check_head(self._head_bytes)

    def _check_head(self, size: int) -> None:
        if size > self._limits.max_head_bytes and not self._lingering:
            self._refuse(
                refusal(431, f"the request's head is larger than {self._limits.max_head_bytes} bytes")
            )

    def _refuse_body(self) -> None:
        limit = self._limits.max_body_bytes
        self._refuse(
            refusal(413, f"the body is larger than the limit of {limit} bytes: send fewer rows at a time")
        )

    def _refuse(self, response: Response) -> None:
        """Answer what came before, then this, then hang up; whatever else arrives is thrown away."""
        self._lingering = True
        self._release(self._size)
        self._clear()
        self._backlog.append(response)
        self._server.loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._backlog and not self._busy and not self._blocked:
                item = self._backlog.popleft()
                if isinstance(item, Response):
                    self._write(item, close=True)
                else:
                    self._hand_over(item)
        finally:
            self._pumping = False
        self._flow()

    def _hand_over(self, request: Request) -> None:
        self._busy = True
        size = len(request.body)
        keep_alive = request.keep_alive

        def respond(response: Response) -> None:
            self._busy = False
            self._release(size)
            last = not self._backlog and (self._server.draining or self._half_closed)
            self._write(response, close=last or not keep_alive)
            self._pump()

        self._server.handle(request, respond)

    def _write(self, response: Response, *, close: bool) -> None:
        if self._ended or self._transport.is_closing():
            return
        close = close or response.close
        self._transport.write(response.encode(close=close))
        if not self._blocked:
            self.deadline = self._now() + self._limits.idle_limit_s
        if close:
            self._hang_up()

    def _hang_up(self) -> None:
        self._ended = True
        self._backlog.clear()
        if not self._lingering:
            self._transport.close()
            return
        self.deadline = self._now() + LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _flow(self) -> None:
        transport: Any = self._transport
        if transport.is_closing():
            return
        wanted = not self._blocked and len(self._backlog) < PIPELINE_LIMIT
        if wanted and not transport.is_reading():
            transport.resume_reading()
        elif not wanted and transport.is_reading():
            transport.pause_reading()

    def _release(self, size: int) -> None:
        self._held -= size
        self._server.release(size)
