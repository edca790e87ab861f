"""How bytes come in: http, https and folders, each watched for silence and for trickling."""

from __future__ import annotations

import time
from http.client import HTTPException
from pathlib import Path
from typing import Iterator
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from farrier_contracts import __version__

from .settings import Settings

_NOT_FOUND = 404


class Transport(FetcherInterface):
    """Opens one URL at a time; `last` is the one it was asked for last, to be named in errors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.last = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = url
        chunks = self._file(url) if urlsplit(url).scheme == "file" else self._http(url)
        first = next(chunks)  # opens it, so that an absent file is known before any byte is wanted
        return self._watched(url, first, chunks)

    def _file(self, url: str) -> Iterator[bytes]:
        path = Path(url2pathname(urlsplit(url).path))
        if not path.is_file():
            raise DownloadHTTPError("no such file", _NOT_FOUND)
        with path.open("rb") as file:
            yield b""
            yield from iter(lambda: file.read(self._settings.chunk_bytes), b"")

    def _http(self, url: str) -> Iterator[bytes]:
        request = Request(url, headers={"User-Agent": f"farrier-agent/{__version__}"})
        try:
            response = urlopen(request, timeout=self._settings.silence_s)
        except HTTPError as error:
            error.close()
            raise DownloadHTTPError(f"HTTP status {error.code}", error.code) from None
        except URLError as error:
            raise DownloadError(str(error.reason)) from None
        with response:
            yield b""
            expected, received = response.headers.get("Content-Length"), 0
            for chunk in iter(lambda: response.read1(self._settings.chunk_bytes), b""):
                received += len(chunk)
                yield chunk
            if expected is not None and received < int(expected):
                raise DownloadError("the connection ended early")

    def _watched(self, url: str, first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        started, received = time.monotonic(), len(first)
        try:
            for chunk in chunks:
                received += len(chunk)
                elapsed = time.monotonic() - started
                if elapsed > self._settings.grace_s and received < elapsed * self._settings.least_bytes_per_s:
                    raise SlowRetrievalError(f"only {received} bytes in {elapsed:.0f} s")
                yield chunk
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(str(error) or type(error).__name__) from error
