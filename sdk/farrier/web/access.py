"""Who may look: one token, compared in constant time, kept in a cookie that scripts cannot read."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from farrier_contracts.errors import InputError, UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "farrier_token"
PARAMETER = "token"
TOKEN_MIN_CHARACTERS = 8
TOKEN_MAX_BYTES = 1024
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",  # the address may hold the token
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Farrier</title><h1>Farrier</h1><p>This page needs its token: open the address that
<code>farrier dashboard</code> printed when it started.</p></html>"""


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def read_token(path: Path) -> str:
    """Return the token in a file, without the white space around it; raises InputError."""
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_MAX_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read a token from {path} ({error}); write one line of plain characters"
        ) from None
    return checked_token(token)


def checked_token(token: str) -> str:
    """Return a token that may guard a page and stand in a cookie; raises UsageError."""
    plain = token.isascii() and token.replace("-", "").replace("_", "").isalnum()
    if not plain or not TOKEN_MIN_CHARACTERS <= len(token) <= TOKEN_MAX_BYTES:
        raise UsageError(
            f"a token needs at least {TOKEN_MIN_CHARACTERS} characters, letters, digits, hyphens and underscores only"
        )
    return token


class Guard:
    """ASGI middleware: lets nobody in without the token, and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self._answer(scope)(scope, receive, guarded)

    def _answer(self, scope: Scope) -> ASGIApp:
        from starlette.requests import Request
        from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

        request = Request(scope)
        given = request.query_params.get(PARAMETER)
        if given is not None and self._right(given):
            rest = urlencode([pair for pair in request.query_params.multi_items() if pair[0] != PARAMETER])
            path = "/" + request.url.path.lstrip("/")  # never another host
            answer = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict", path="/")
            return answer
        if given is None and self._right(request.cookies.get(COOKIE, "")):
            return self._app
        if request.url.path.startswith("/api/"):
            return self._app if self._bearer(request.headers) else JSONResponse({"error": "no token"}, 401)
        return HTMLResponse(REFUSED, 401)

    def _bearer(self, headers: object) -> bool:
        text = headers.get("authorization", "")  # type: ignore[attr-defined]
        return text.startswith("Bearer ") and self._right(text.removeprefix("Bearer "))

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)
