"""What bundles, versions and parts may be called: safe as file names, URL paths and MQTT payloads."""

from __future__ import annotations

import re
from typing import Any

from ..errors import BundleError

_BUNDLE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.+-]{0,62}[0-9A-Za-z])?")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def bundle(value: Any) -> str:
    """Return a bundle's name: lower-case letters, digits and inner hyphens, 1 to 64 characters."""
    return _match(_BUNDLE, value, "a bundle name is lower-case letters, digits and inner hyphens")


def version(value: Any) -> str:
    """Return a bundle's version: letters, digits and inner dots, pluses and hyphens, 1 to 64 characters."""
    return _match(_VERSION, value, "a version is letters, digits and inner dots, pluses and hyphens")


def part(value: Any) -> str:
    """Return a part's name: a plain file name without folders."""
    return _match(_PART, value, "a part name is a plain file name of letters, digits, '.', '_' and '-'")


def digest(value: Any, name: str) -> str:
    """Return a SHA-256 in lower-case hex."""
    return _match(_DIGEST, value, f"the sha256 of {name!r} is 64 lower-case hex digits")


def _match(pattern: re.Pattern[str], value: Any, rule: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BundleError(f"{rule}, not {value!r:.80}")
    return value
