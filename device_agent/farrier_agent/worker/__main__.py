"""The command line of the worker, written by the supervisor."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any, Callable, Coroutine

from farrier_contracts.errors import UsageError

from . import settings
from .process import EXIT_FAILED, WorkerOptions, live


def main() -> int:
    """Run the worker and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m farrier_agent.worker")
    parser.add_argument("--store", type=Path, required=True, help="folder of unpacked bundles")
    parser.add_argument("--digest", required=True, help="identity of the bundle to run")
    parser.add_argument("--name", required=True, help="name of the model in the local API")
    parser.add_argument("--listen-fd", default="", help="listening sockets, as 3,4")
    parser.add_argument("--control-fd", type=int, required=True, help="the control socket")
    parser.add_argument("--stats", type=Path, required=True, help="the statistics file")
    parser.add_argument("--engines", type=Path, help="folder that keeps what engines build on this device")
    parser.add_argument("--settings", default="{}", help="JSON object of limits")
    given = parser.parse_args()
    try:
        options = WorkerOptions(
            store=given.store,
            digest=given.digest,
            name=given.name,
            listen_fds=tuple(int(fd) for fd in given.listen_fd.split(",") if fd),
            control_fd=given.control_fd,
            stats=given.stats,
            engines=given.engines,
            settings=settings.parse(given.settings),
        )
    except (UsageError, ValueError) as error:
        sys.stderr.write(f"worker: {error}\n")
        return EXIT_FAILED
    return _event_loop_runner()(live(options))


def _event_loop_runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    """Return uvloop's runner where it is installed: fewer microseconds per request, nothing else differs."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.run
    return uvloop.run


if __name__ == "__main__":
    sys.exit(main())
