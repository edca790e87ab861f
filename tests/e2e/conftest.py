"""What the end-to-end tests share: whole programs, run as their users run them, and a device behind a real sshd."""

from __future__ import annotations

import getpass
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MARK = "FARRIER_TEST_RUN"


@pytest.fixture(autouse=True, scope="session")
def base_alone(no_tools: None) -> None:
    """Commands find no heavy tools."""


@pytest.fixture
def marked_environment(tmp_path: Path) -> Iterator[tuple[dict[str, str], Callable[[], list[str]]]]:
    """An environment whose every process can be found again, with temporary files in a folder of its own.

    Yields the environment and a function that lists the command lines of processes still running in it.
    """
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="f-") as scratch:  # short: Unix sockets are made below it
        (tmp_path / "scratch").symlink_to(scratch)
        environment = {**os.environ, MARK: mark, "TMPDIR": scratch}
        yield environment, lambda: _running(f"{MARK}={mark}".encode())
        assert not _running(f"{MARK}={mark}".encode())


def _running(mark: bytes) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:  # a zombie has none
                    found.append(command)
        except OSError:
            continue
    return found


@dataclass(frozen=True)
class Device:
    """What `farrier flash` is given to reach the sshd of the tests."""

    destination: str
    port: int
    folder: Path
    identity: Path
    known_hosts: Path

    @property
    def ssh_options(self) -> tuple[str, ...]:
        # /dev/null: nothing of the developer's own ~/.ssh takes part
        return (f"UserKnownHostsFile={self.known_hosts}", "GlobalKnownHostsFile=/dev/null")

    @property
    def arguments(self) -> list[str]:
        options = [word for option in self.ssh_options for word in ("--ssh-option", option)]
        return [self.destination, "--port", str(self.port), "--identity", str(self.identity), *options]


@pytest.fixture(scope="session")
def ssh_key(program) -> Callable[[Path], Path]:
    """Make a new key pair at a path."""

    def make(path: Path) -> Path:
        command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True, timeout=30)
        return path

    return make


@pytest.fixture(scope="session")
def device(
    tmp_path_factory: pytest.TempPathFactory, ssh_key, program, free_port, answers, running, eventually
) -> Iterator[Device]:
    """A real sshd that lets the current user in with one key."""
    sshd = program("sshd")
    program("ssh")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd separates its privileges
    folder = tmp_path_factory.mktemp("sshd")
    host_key, identity, port = ssh_key(folder / "host"), ssh_key(folder / "user"), free_port()
    (folder / "authorized_keys").write_text(identity.with_suffix(".pub").read_text())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    log = folder / "log"
    with running(sshd, "-D", "-e", "-f", str(folder / "sshd_config"), log=log) as process:
        eventually(lambda: answers(port) or process.poll() is not None, limit_s=20, what="sshd answers")
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
        yield Device(f"{getpass.getuser()}@127.0.0.1", port, folder, identity, folder / "known_hosts")


@pytest.fixture(scope="session")
def wheel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of wheels for the session, so that each set is fetched once."""
    return tmp_path_factory.mktemp("cache")
