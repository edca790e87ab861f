"""A small static server of a repository's public folder: files by their exact path, nothing else."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from farrier_contracts.errors import InputError

from ..listening import cannot_listen
from ..signals import told_to_stop
from .layout import Repository

CONNECTION_TIMEOUT_S = 30.0  # of silence on a connection
CONNECTIONS_MAX = 256  # at the same time; more are closed at once
QUEUE_LENGTH = 128  # connections that wait to be accepted


class RepositoryServer:
    """Serves a repository on a thread of its own, from `with` to the end of the block; port 0 is any free one."""

    def __init__(self, repo: Path, *, port: int = 0, host: str = "127.0.0.1") -> None:
        public = Repository(repo).public
        if not public.is_dir():
            raise InputError(f"{repo} is not a repository: make one with 'farrier repo init {repo}'")
        try:
            self._server = _Server((host, port), partial(_Handler, public.resolve()))
        except (OSError, OverflowError) as error:
            raise cannot_listen(error, host, port) from None
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> RepositoryServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve(
    repo: Path, *, port: int = 0, host: str = "127.0.0.1", ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called once with the address. For a process's main thread.

    Raises InputError where `repo` is no repository, UsageError where the port cannot be had.
    """
    server = RepositoryServer(repo, port=port, host=host)
    with told_to_stop() as told, server:
        if ready is not None:
            ready(server.url)
        told.wait()


def locate(public: Path, request: str) -> Path | None:
    """Return the file that a request's path names, or None for all else: folders, hidden files, ways out."""
    parts = PurePosixPath(unquote(urlsplit(request).path)).parts[1:]
    if not parts or any(part.startswith(".") or "\0" in part for part in parts):
        return None
    try:
        path = public.joinpath(*parts).resolve(strict=True)
    except (OSError, ValueError):
        return None
    return path if path.is_file() and path.is_relative_to(public) else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = QUEUE_LENGTH

    def __init__(self, address: tuple[str, int], handler: Callable[..., Any]) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away in the middle is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "farrier"
    sys_version = ""
    timeout = CONNECTION_TIMEOUT_S

    def __init__(self, public: Path, *args: Any) -> None:
        self._public = public
        super().__init__(*args)

    def do_GET(self) -> None:
        file = self._open()
        if file is not None:
            with file:
                shutil.copyfileobj(file, self.wfile)

    def do_HEAD(self) -> None:
        file = self._open()
        if file is not None:
            file.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _open(self) -> BinaryIO | None:
        path = locate(self._public, self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        file = path.open("rb")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
        self.send_header("Cache-Control", "no-cache" if path.name == "timestamp.json" else "max-age=86400")
        self.end_headers()
        return file
