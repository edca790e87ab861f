"""Requests and responses of HTTP/1.1 as the local API sees them. No sockets here."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from farrier_contracts.errors import FarrierError, InputError

from ..batching.batcher import LateError, RejectedError

JSON = "application/json"
OCTETS = "application/octet-stream"
RETRY_AFTER_S = 1

Chunk = Union[bytes, bytearray, memoryview]


class NotFoundError(InputError):
    """There is no such path, model or region."""


class UnsupportedError(InputError):
    """The protocol has it, this server has not, and says so in its list of extensions."""


# the first match counts
_STATUS = (
    (LateError, HTTPStatus.GATEWAY_TIMEOUT),
    (RejectedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (UnsupportedError, HTTPStatus.NOT_IMPLEMENTED),
    (InputError, HTTPStatus.BAD_REQUEST),
    (FarrierError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


@dataclass
class Request:
    """One request; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[bytes, bytes]
    body: bytes
    keep_alive: bool = True

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def wants_json(self) -> bool:
        """Say whether the client names JSON among what it accepts."""
        return b"application/json" in self.headers.get(b"accept", b"")


@dataclass(frozen=True)
class Response:
    """One response. `close` ends the connection after it."""

    status: int = 200
    chunks: Sequence[Chunk] = ()
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False

    def encode(self, *, close: bool) -> bytes:
        """Return the bytes to send."""
        length = sum(len(chunk) for chunk in self.chunks)
        lines = [_STATUS_LINES[self.status], "Content-Length: ", str(length), "\r\n"]
        if length:
            lines += ("Content-Type: ", self.content_type, "\r\n")
        for name, value in self.headers.items():
            lines += (name, ": ", value, "\r\n")
        lines.append("Connection: close\r\n\r\n" if close or self.close else "\r\n")
        return b"".join(("".join(lines).encode("latin-1"), *self.chunks))


_STATUS_LINES: Dict[int, str] = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}


_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)  # made once: it is costly


def compact_json(document: Any) -> bytes:
    """Return a document as JSON without spaces."""
    return _ENCODER.encode(document).encode()


def json_response(document: Any, *, status: int = 200) -> Response:
    """Return a document as JSON."""
    return Response(status, [compact_json(document)])


def refusal(status: int, sentence: str, *, close: bool = False) -> Response:
    """Return an error in the protocol's form."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(status, [json.dumps({"error": sentence}).encode()], headers=headers, close=close)


def refusal_for(error: Exception) -> Response:
    """Return the response for an error; one that is not Farrier's own says no more than that it happened."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return refusal(status, str(error))
    return refusal(500, "the server failed on this request")


def plain_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the body without its content coding; raises InputError where it is damaged, too large or unknown."""
    coding = request.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding == b"identity":
        return request.body
    if coding not in (b"gzip", b"deflate"):
        raise InputError(
            f"content encoding {coding.decode('latin-1')!r:.40} is unknown: send gzip, deflate or none"
        )
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: a gzip or zlib header, whichever comes
    try:
        body = inflater.decompress(request.body, max_bytes)
    except zlib.error:
        raise InputError("the compressed body is damaged") from None
    if not inflater.eof:
        raise InputError(f"the compressed body is cut short, or larger than {max_bytes} bytes when inflated")
    return body


def whole_number(value: Optional[bytes]) -> Optional[int]:
    """Return a header's value as a number of at least 0, None where it is absent; raises InputError."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise InputError(f"a header holds {value[:20].decode('latin-1')!r} where a length belongs")
    return int(value)
