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

from farrier_contracts.errors import FarrierError, InputError

from ..store import Store, open_store
from . import pages
from .access import PARAMETER, Guard, checked_token, new_token

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

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

    Raises FarrierError where the port is taken, InputError where there is no usable store.
    """
    import uvicorn

    made = token is None
    token = new_token() if token is None else checked_token(token)
    open_store(store).close()  # a wrong store is told before anything listens
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"
    config = uvicorn.Config(
        make_app(store, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GOODBYE_S,
    )
    with listener, _quiet_end():
        ready(f"{address}?{PARAMETER}={token}" if made else address)
        uvicorn.Server(config).run(sockets=[listener])


def make_app(store_url: str, token: str) -> ASGIApp:
    """Return the ASGI application."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def page(template: str, facts: Callable[[Store, Request], Any]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            with open_store(store_url) as store:
                return HTMLResponse(pages.render(template, facts(store, request)))

        return answer

    def data(facts: Callable[[Store, Request], Any]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            with open_store(store_url) as store:
                return JSONResponse(facts(store, request))

        return answer

    def fleet(store: Store, request: Request) -> Any:
        return pages.fleet_page(store)

    def device(store: Store, request: Request) -> Any:
        return pages.device_page(store, *_named(request), _span(request))

    def not_found(request: Request, error: Exception) -> Response:
        return _refusal(
            request, 404, str(error) if isinstance(error, FarrierError) else "there is no such page"
        )

    def busy(request: Request, error: Exception) -> Response:
        return _refusal(request, 503, "the store cannot be read at the moment")

    where = "{fleet}/{device}"
    routes = [
        Route("/", page("fleet.html", fleet)),
        Route("/fragments/fleet", page("fleet_body.html", fleet)),
        Route(f"/devices/{where}", page("device.html", device)),
        Route(f"/fragments/devices/{where}", page("device_body.html", device)),
        Route("/api/fleet", data(lambda store, request: pages.fleet_facts(store))),
        Route(f"/api/devices/{where}", data(lambda store, r: pages.device_facts_of(store, *_named(r)))),
        Route(
            f"/api/devices/{where}/curves",
            data(lambda store, request: pages.curves_of(store, *_named(request), _span(request))),
        ),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers = {404: not_found, InputError: not_found, FarrierError: not_found, sqlite3.Error: busy}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


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
        raise FarrierError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --port"
        ) from None


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
