"""The dashboard's server: routes over the store, each request on a connection of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import FarrierError

from ..listening import cannot_listen
from ..store import Store, open_store
from . import pages
from .access import PARAMETER, Guard, checked_token, new_token

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

Facts = Callable[[Store, "Request"], dict[str, Any]]

STATIC = Path(__file__).parent / "static"
GOODBYE_S = 3
BACKLOG = 128


def dashboard(
    store: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8787,
    token: str | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the pages until SIGTERM or SIGINT; `ready` is given the address, with the token where it was made here.

    Raises UsageError where the port is taken, InputError where there is no usable store.
    """
    import uvicorn

    made = token is None
    token = new_token() if token is None else checked_token(token)
    with _listen(host, port) as listener, _quiet_end():
        open_store(store).close()  # a wrong store is told here, and a new one made only where it can be shown
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        config = uvicorn.Config(
            make_app(store, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GOODBYE_S,
        )
        ready(f"{address}?{PARAMETER}={token}" if made else address)
        uvicorn.Server(config).run(sockets=[listener])


def make_app(store_url: str, token: str) -> ASGIApp:
    """Return the ASGI application."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def route(path: str, facts: Facts, template: str = "") -> Route:
        def answer(request: Request) -> Response:
            with open_store(store_url) as store:
                found = facts(store, request)
            return HTMLResponse(pages.render(template, found)) if template else JSONResponse(found)

        return Route(path, answer)

    where = "{fleet}/{device}"
    routes = [
        route("/", _fleet, "fleet.html"),
        route("/fragments/fleet", _fleet, "fleet_body.html"),
        route(f"/devices/{where}", _device, "device.html"),
        route(f"/fragments/devices/{where}", _device, "device_body.html"),
        route("/api/fleet", lambda store, request: pages.fleet_facts(store)),
        route(f"/api/devices/{where}", lambda store, request: pages.device_facts_of(store, *_named(request))),
        route(
            f"/api/devices/{where}/curves",
            lambda store, request: pages.curves_of(store, *_named(request), _span(request)),
        ),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers = {404: _not_found, FarrierError: _not_found, sqlite3.Error: _busy}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


def _fleet(store: Store, request: Request) -> dict[str, Any]:
    return pages.fleet_page(store)


def _device(store: Store, request: Request) -> dict[str, Any]:
    return pages.device_page(store, *_named(request), _span(request))


def _not_found(request: Request, error: Exception) -> Response:
    return _refusal(request, 404, str(error) if isinstance(error, FarrierError) else "there is no such page")


def _busy(request: Request, error: Exception) -> Response:
    return _refusal(request, 503, "the store cannot be read at the moment")


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["fleet"], request.path_params["device"]


def _span(request: Request) -> str:
    return request.query_params.get("span", pages.DEFAULT_SPAN)


def _refusal(request: Request, status: int, sentence: str) -> Response:
    from starlette.responses import HTMLResponse, JSONResponse

    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": sentence}, status)
    return HTMLResponse(pages.render("refusal.html", {"status": status, "sentence": sentence}), status)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise cannot_listen(error, host, port) from None


@contextmanager
def _quiet_end() -> Iterator[None]:
    # uvicorn stops on these signals and then raises them again: for us, being told to stop is no failure.
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(TypeError):  # a handler that was not set from Python
                signal.signal(number, handler)
