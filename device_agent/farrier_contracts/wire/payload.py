"""The outside of every payload: a CBOR or JSON body, deflated above 1 kB, told apart by its first byte.

A CBOR map starts with a byte of 0xa0 or more, JSON with `{`, a zlib stream (RFC 1950) with 0x78. The body's own
codec (cbor2, json) belongs to the caller: this package uses the standard library only.
"""

from __future__ import annotations

import zlib

from ..errors import InputError

COMPRESS_ABOVE_BYTES = 1024
PAYLOAD_MAX_BYTES = 128 << 10  # brokers of large fleets refuse more
BODY_MAX_BYTES = 4 << 20
_ZLIB = 0x78


def seal(body: bytes) -> bytes:
    """Return the payload for a body; raises InputError where it would be too large to send."""
    if len(body) > BODY_MAX_BYTES:
        raise InputError(f"a message body of {len(body)} bytes is above the limit of {BODY_MAX_BYTES}")
    payload = zlib.compress(body, 6) if len(body) > COMPRESS_ABOVE_BYTES else body
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise InputError(f"a message of {len(payload)} bytes is above the limit of {PAYLOAD_MAX_BYTES}")
    return payload


def unseal(payload: bytes) -> bytes:
    """Return the body of a payload, at most BODY_MAX_BYTES long; raises InputError."""
    if not payload or len(payload) > PAYLOAD_MAX_BYTES:
        raise InputError(f"a payload of {len(payload)} bytes is empty or above the limit")
    if payload[0] != _ZLIB:
        return payload
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(payload, BODY_MAX_BYTES + 1)
    except zlib.error:
        raise InputError("a payload is damaged") from None
    if not inflater.eof or inflater.unused_data or len(body) > BODY_MAX_BYTES:
        raise InputError("a payload is damaged or too large when inflated")
    return body


def is_json(body: bytes) -> bool:
    """Say whether a body is JSON rather than CBOR."""
    return body[:1] == b"{"
