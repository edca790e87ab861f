"""What is said where a port cannot be had."""

from __future__ import annotations

import errno

from farrier_contracts.errors import UsageError


def cannot_listen(error: Exception, host: str, port: int) -> UsageError:
    """Return the error to raise for what `bind` or `listen` said."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} on {host} is in use: choose another with --port")
    reason = getattr(error, "strerror", None) or str(error)
    return UsageError(f"cannot listen on {host}:{port} ({reason.partition(' (')[0]}): choose another address")
