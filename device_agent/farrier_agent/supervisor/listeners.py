"""The listening sockets of deployments. The supervisor owns them, so that a swap or a crash refuses nobody."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Dict, Iterable, Tuple

from farrier_contracts.errors import InputError

from ..config import Api

BACKLOG = 512  # connections that wait while workers change


class Listeners:
    """One TCP socket per deployment and port, and one Unix socket per deployment."""

    def __init__(self, folder: Path, api: Api) -> None:
        """Unix sockets are `folder`/NAME.sock."""
        self._folder, self._api = folder, api
        self._tcp: Dict[Tuple[str, int], socket.socket] = {}
        self._unix: Dict[str, socket.socket] = {}

    def open(self, name: str, port: int) -> Tuple[int, int]:
        """Return the descriptors of a deployment's TCP and Unix sockets; raises InputError with a sentence."""
        if name not in self._unix:
            self._unix[name] = self._listen_unix(name)
        if (name, port) not in self._tcp:
            self._tcp[name, port] = self._listen_tcp(port or self._api.port)
        return self._tcp[name, port].fileno(), self._unix[name].fileno()

    def endpoint(self, name: str, port: int) -> str:
        """Return the URL that clients use, empty where the deployment does not listen."""
        listening = self._tcp.get((name, port))
        if listening is None:
            return ""
        host = f"[{self._api.host}]" if ":" in self._api.host else self._api.host
        return f"http://{host}:{listening.getsockname()[1]}"

    def keep(self, wanted: Iterable[Tuple[str, int]]) -> None:
        """Close every socket that does not belong to one of these deployments and ports."""
        kept = set(wanted)
        for key in [key for key in self._tcp if key not in kept]:
            self._tcp.pop(key).close()
        names = {name for name, _ in kept}
        for name in [name for name in self._unix if name not in names]:
            self._unix.pop(name).close()
            self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all."""
        self.keep(())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.sock"

    def _listen_tcp(self, port: int) -> socket.socket:
        host = self._api.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            why = (error.strerror or str(error)).lower()
            raise InputError(
                f"{host} port {port} cannot be used ({why}): choose another port for the deployment"
            ) from None
        sock.setblocking(False)
        return sock

    def _listen_unix(self, name: str) -> socket.socket:
        path = self._path(name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            path.chmod(0o660)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise InputError(
                f"the socket {path} cannot be made ({error.strerror or error}): use a shorter state_dir"
            ) from None
        sock.setblocking(False)
        return sock
