"""One SSH connection through the system's `ssh` client: commands with limits, and its failures as sentences."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from farrier_contracts.errors import FarrierError, MissingToolError, UsageError

CONNECT_LIMIT_S = 15
IDLE_MASTER_S = 60  # a master whose owner was killed ends by itself after this
KEEP_ALIVE_S = 15  # a silent connection is given up after three of these
CLOSE_LIMIT_S = 5
OUTPUT_MAX_CHARACTERS = 1 << 20
_SSH_FAILED = 255
_DESTINATION = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9:\[][A-Za-z0-9._:%\]-]*")


@dataclass(frozen=True)
class Remote:
    """Where a device is and how it is reached. `options` are ssh's own `Key=Value` words."""

    destination: str
    port: int | None = None
    identity: Path | None = None
    accept_new_host_key: bool = False
    options: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UsageError for what can be told wrong without connecting."""
        if not _DESTINATION.fullmatch(self.destination):
            raise UsageError(f"{self.destination!r:.200} is not USER@HOST")
        if self.port is not None and not 0 < self.port < 1 << 16:
            raise UsageError(f"{self.port} is not a port")
        if self.identity is not None and not self.identity.is_file():
            raise UsageError(f"there is no key file {self.identity}; give the private key with --identity")
        for option in self.options:
            if not re.fullmatch(r"[A-Za-z]+=[^\n]*", option):
                raise UsageError(f"{option!r:.200} is no ssh option; write it as Key=Value")


@dataclass(frozen=True)
class Output:
    """What a command on the device ended with."""

    code: int
    stdout: str
    stderr: str


class Connection:
    """An open connection, shared by every command run on it; a context manager."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._folder = tempfile.TemporaryDirectory(prefix="farrier-ssh-")
        self._control = Path(self._folder.name) / "control"

    def __enter__(self) -> Connection:
        """Connect; raises FarrierError with a sentence, MissingToolError where there is no ssh."""
        try:
            self._remote.check()
            self._open()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the connection."""
        self._end_master()
        self._folder.cleanup()

    def _end_master(self) -> None:
        command = self._command("-O", "exit")
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, timeout=CLOSE_LIMIT_S, env=_env(), check=False)

    def _open(self) -> None:
        if shutil.which("ssh") is None:
            raise MissingToolError(
                "there is no ssh client here; install it (on Debian: apt install openssh-client)"
            )
        # The master goes to the background and keeps its stderr: a file, since a pipe would never end.
        errors = Path(self._folder.name) / "errors"
        command = self._command("-M", "-N", "-f")
        with errors.open("wb") as file:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, env=_env(),
                    timeout=2 * CONNECT_LIMIT_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise FarrierError(
                    f"{self._remote.destination} did not let us in within {2 * CONNECT_LIMIT_S} s"
                ) from None
        if done.returncode:
            raise FarrierError(_sentence(errors.read_text(errors="replace"), self._remote))

    def _command(self, *extra: str) -> list[str]:
        remote = self._remote
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_LIMIT_S),
            "ServerAliveInterval": str(KEEP_ALIVE_S),
            "ControlPath": str(self._control),
            "ControlPersist": str(IDLE_MASTER_S),
            "StrictHostKeyChecking": "accept-new" if remote.accept_new_host_key else "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
        }
        words = ["ssh", "-T"]
        for option in [*(f"{key}={value}" for key, value in settings.items()), *remote.options]:
            words += ["-o", option]
        if remote.port is not None:
            words += ["-p", str(remote.port)]
        if remote.identity is not None:
            words += ["-i", str(remote.identity), "-o", "IdentitiesOnly=yes"]
        return [*words, *extra, remote.destination]

    def run(
        self,
        script: str,
        arguments: Iterable[str] = (),
        *,
        limit_s: float,
        elevate: bool = False,
        feed: Callable[[BinaryIO], None] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> Output:
        """Run a POSIX-sh script on the device; `feed` writes its standard input, `on_line` sees each line it prints.

        The input comes from this process alone: where it dies, the script reads an end of file. Raises FarrierError
        where the connection breaks or the limit passes; any other exit code is the caller's.
        """
        words = ["sudo", "-n"] if elevate else []
        remote = shlex.join([*words, "sh", "-c", script, "farrier-flash", *arguments])
        process = subprocess.Popen(
            [*self._command(), remote],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_env(),
        )  # fmt: skip
        try:
            output = _converse(process, feed, on_line, limit_s=limit_s, abandon=self._end_master)
        except subprocess.TimeoutExpired:
            where = self._remote.destination
            raise FarrierError(f"a command on {where} did not finish within {limit_s:g} s") from None
        if output.code == _SSH_FAILED:
            raise FarrierError(_sentence(output.stderr, self._remote))
        return output


def _converse(
    process: subprocess.Popen[bytes],
    feed: Callable[[BinaryIO], None] | None,
    on_line: Callable[[str], None],
    *,
    limit_s: float,
    abandon: Callable[[], None],
) -> Output:
    """Feed a process and read both its outputs at once, a thread each, until it ends or its time is up.

    Where it must be abandoned the connection's master goes too: it holds the other ends of the pipes.
    """
    lines: list[str] = []
    errors: list[str] = []
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (_feed, (process.stdin, feed)),
        (_read, (process.stdout, lines, on_line)),
        (_read, (process.stderr, errors, lambda line: None)),
    ]
    threads = [threading.Thread(target=target, args=arguments, daemon=True) for target, arguments in work]
    for thread in threads:
        thread.start()
    try:
        code = process.wait(limit_s)
    except BaseException:
        process.kill()
        process.wait()
        abandon()
        raise
    finally:
        for thread in threads:
            thread.join()
    return Output(code, "\n".join(lines), "\n".join(errors))


def _feed(pipe: BinaryIO, feed: Callable[[BinaryIO], None] | None) -> None:
    with suppress(OSError, ValueError):  # the device stopped reading: its exit code says why
        if feed:
            feed(pipe)
    with suppress(OSError):
        pipe.close()


def _read(pipe: BinaryIO, lines: list[str], on_line: Callable[[str], None]) -> None:
    length = 0
    with pipe:
        for raw in iter(lambda: pipe.readline(OUTPUT_MAX_CHARACTERS), b""):
            line = raw.decode("utf-8", "replace").rstrip()
            length += len(line) + 1
            if length <= OUTPUT_MAX_CHARACTERS:
                lines.append(line)
                on_line(line)


def _env() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _sentence(stderr: str, remote: Remote) -> str:
    """Return the cause of ssh's exit code 255 and what to do about it."""
    host = remote.destination
    port = f" port {remote.port}" if remote.port else ""
    causes: Sequence[tuple[str, str]] = (
        ("IDENTIFICATION HAS CHANGED", f"the host key of {host} is not the one known for it; if the device was "
                                       "set up anew, remove the old key with ssh-keygen -R"),
        ("host key is known", f"the host key of {host} is not known; check it by connecting once with ssh, "
                              "or take it as it is with --accept-new-host-key"),
        ("Host key verification failed", f"the host key of {host} is not known; check it by connecting once with "
                                         "ssh, or take it as it is with --accept-new-host-key"),
        ("bad permissions", "the private key may be read by others; run chmod 600 on it"),
        ("Permission denied", f"{host} refused the key; put its public half into the device's "
                              "~/.ssh/authorized_keys, or name another with --identity"),
        ("Too many authentication failures", f"{host} refused every key; name the right one with --identity"),
        ("Could not resolve", f"the host name in {host} is unknown; check its spelling or give its address"),
        ("Connection refused", f"nothing listens for SSH at {host}{port}; is its SSH server running?"),
        ("timed out", f"{host}{port} did not answer within {CONNECT_LIMIT_S} s; is it switched on and reachable?"),
        ("No route to host", f"there is no route to {host}; is it in this network?"),
        ("Network is unreachable", f"there is no route to {host}; is this machine connected?"),
    )  # fmt: skip
    for sign, sentence in causes:
        if sign in stderr:
            return sentence
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f"the connection to {host} failed: {lines[-1][:300] if lines else 'ssh gave no reason'}"
