"""The worker's life: load, report, serve, drain, exit."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from farrier_contracts import bundle as bundles
from farrier_contracts.errors import FarrierError

from ..oip.api import Api
from ..oip.server import Server
from ..runtime import Runtime
from ..stats import Stats
from .settings import WorkerSettings

HEARTBEAT_S = 0.25
BRIEF_DRAIN_S = 5.0  # when the supervisor is gone
CLOSE_LIMIT_S = 5.0  # for the engine to finish its last run
SWITCH_INTERVAL_S = (
    0.0005  # the engine's thread must not wait 5 ms for the interpreter while clients are parsed
)
ORDER_MAX_BYTES = 64 << 10
EXIT_FAILED = 2


@dataclass(frozen=True)
class WorkerOptions:
    """What the supervisor says on the command line."""

    store: Path
    digest: str
    name: str
    listen_fds: Tuple[int, ...]
    control_fd: int
    stats: Path
    settings: WorkerSettings
    engines: Optional[Path] = None


class Control:
    """The worker's end of the control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next: Optional[asyncio.Task[Dict[str, Any]]] = None

    @classmethod
    async def open(cls, fd: int) -> Control:
        """Take over the socket with this number; SIGTERM ends it from this side."""
        control = socket.socket(fileno=fd)
        reader, writer = await asyncio.open_unix_connection(sock=control, limit=ORDER_MAX_BYTES)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reader.feed_eof)
        return cls(reader, writer)

    def order(self) -> asyncio.Task[Dict[str, Any]]:
        """Return the task of reading the next order; the same one until it was `taken`."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
        return self._next

    async def take(self) -> Dict[str, Any]:
        """Wait for the next order and use it up; the end of the socket is an order to drain briefly."""
        order = await self.order()
        self._next = None
        return order

    async def tell(self, event: str, **more: Any) -> None:
        """Report an event; a supervisor that is gone does not hear it."""
        self._writer.write(json.dumps({"event": event, **more}).encode() + b"\n")
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        """Forget the socket."""
        if self._next is not None:
            self._next.cancel()
        self._writer.close()

    async def _read(self) -> Dict[str, Any]:
        try:
            line = await self._reader.readline()
            order = json.loads(line) if line else {"do": "drain", "within_s": BRIEF_DRAIN_S, "last": True}
            return order if isinstance(order, dict) else {}
        except ConnectionError:
            return {"do": "drain", "within_s": BRIEF_DRAIN_S, "last": True}
        except ValueError:
            return {}


async def live(options: WorkerOptions) -> int:
    """Run one worker from start to end and return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor answers it
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    control = await Control.open(options.control_fd)
    with Stats.attach(options.stats) as stats:
        try:
            runtime = await _load(options, stats, control)
        except FarrierError as error:
            await control.tell("failed", reason=str(error))
            control.close()
            return EXIT_FAILED
        heart = asyncio.create_task(_beat(runtime))
        api = Api(options.name, runtime, max_body_bytes=options.settings.server.max_body_bytes)
        server = Server(api.handle, settings=options.settings.server)
        await _obey(control, server, api, options)
        await _finish(runtime)
        heart.cancel()
        api.close()
        await control.tell("drained")
        control.close()
    return 0


async def _load(options: WorkerOptions, stats: Stats, control: Control) -> Runtime:
    """Load in a thread, so that the end of the supervisor is seen meanwhile; raises FarrierError."""
    loop = asyncio.get_running_loop()
    start = time.monotonic()

    def building(seconds: float) -> None:  # in the loading thread
        asyncio.run_coroutine_threadsafe(control.tell("building", within_s=seconds), loop)

    loading = loop.run_in_executor(None, _open, options, stats, loop, building)
    while not loading.done():
        await asyncio.wait({loading, control.order()}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done() and (await control.take()).get("do") == "drain":
            os._exit(0)  # nothing was promised yet, and a thread inside an engine cannot be ended
    runtime = await loading
    gc.collect()
    gc.freeze()  # what the libraries made at import never becomes garbage: do not look at it again
    _return_freed_memory()
    elapsed_ms = round((time.monotonic() - start) * 1e3, 3)
    await control.tell("ready", load_ms=elapsed_ms, golden=runtime.golden_cases)
    return runtime


def _open(
    options: WorkerOptions,
    stats: Stats,
    loop: asyncio.AbstractEventLoop,
    building: Callable[[float], None],
) -> Runtime:
    try:
        bundle = bundles.load(options.store, options.digest)
        bundle.verify()
        return Runtime(
            bundle,
            settings=options.settings.runtime,
            stats=stats,
            post=loop.call_soon_threadsafe,
            kept_engines=options.engines,
            building=building,
        )
    except FarrierError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise FarrierError(f"the model could not be loaded: {type(error).__name__}: {error}") from error


def _return_freed_memory() -> None:
    """Give back what loading used for a while: glibc keeps it otherwise, a fifth of a small worker."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such call
        ctypes.CDLL(None).malloc_trim(0)


async def _obey(control: Control, server: Server, api: Api, options: WorkerOptions) -> None:
    """Do what the supervisor says until everything is drained."""
    serving = False
    while True:
        order = await control.take()
        if order.get("do") == "serve" and not serving:
            serving = True
            server.listen([socket.socket(fileno=fd) for fd in options.listen_fds])
            await control.tell("serving")
        elif order.get("do") == "drain":
            api.ready = False
            return await _drain(control, server, order)


async def _drain(control: Control, server: Server, order: Dict[str, Any]) -> None:
    asked = order.get("within_s")
    within_s = float(asked) if isinstance(asked, (int, float)) else BRIEF_DRAIN_S
    draining = asyncio.create_task(server.drain(within_s))
    if not order.get("last"):
        await asyncio.wait({draining, control.order()}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():  # a second order, or the supervisor is gone: hurry
        await asyncio.wait({draining}, timeout=within_s if order.get("last") else BRIEF_DRAIN_S)


async def _finish(runtime: Runtime) -> None:
    """Let go of the model; a run that never ends is left to the end of the process."""
    closing = asyncio.get_running_loop().run_in_executor(None, runtime.close)
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_LIMIT_S)
    if not done:
        os._exit(1)


async def _beat(runtime: Runtime) -> None:
    """Count a heartbeat while the event loop turns and the engine, if it has work, gets on with it."""
    stats, batcher, before = runtime.stats, runtime.batcher, -1
    while True:
        progress = batcher.progress
        if progress is None or progress != before:
            stats.add("heartbeat")
        before = -1 if progress is None else progress
        stats.set("queue_depth", batcher.depth)
        await asyncio.sleep(HEARTBEAT_S)
