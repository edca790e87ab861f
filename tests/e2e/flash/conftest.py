"""A device of this machine's own: a real sshd on loopback with keys of its own, and a real broker."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

STOP_LIMIT_S = 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
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


def make_key(path: Path) -> Path:
    subprocess.run(
        [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


@pytest.fixture(scope="session")
def ssh_key() -> Callable[[Path], Path]:
    """Make a new key pair at a path."""
    return make_key


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory, eventually) -> Iterator[Device]:
    """A real sshd that lets the current user in with one key."""
    sshd = program("sshd")
    program("ssh")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd separates its privileges
    folder = tmp_path_factory.mktemp("sshd")
    host_key, identity, port = make_key(folder / "host"), make_key(folder / "user"), free_port()
    (folder / "authorized_keys").write_text(identity.with_suffix(".pub").read_text())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    log = folder / "log"
    with running([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], log) as process:
        eventually(lambda: answers(port) or process.poll() is not None, limit_s=20, what="sshd answers")
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
        yield Device(f"{getpass.getuser()}@127.0.0.1", port, folder, identity, folder / "known_hosts")


@pytest.fixture
def start_broker(tmp_path: Path, eventually) -> Iterator[Callable[..., str]]:
    """Start a real mosquitto and return its URL; `acl` limits what its clients may do."""
    with ExitStack() as stack:

        def start(*, acl: str = "") -> str:
            port = free_port()
            lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
            if acl:
                (tmp_path / f"acl-{port}").write_text(acl)
                # as root it would become another user, who may not read files here
                lines += [f"acl_file {tmp_path}/acl-{port}", f"user {getpass.getuser()}"]
            config = tmp_path / f"mosquitto-{port}.conf"
            config.write_text("\n".join([*lines, ""]))
            stack.enter_context(
                running([program("mosquitto"), "-c", str(config)], tmp_path / f"mosquitto-{port}.log")
            )
            eventually(lambda: answers(port), limit_s=20, what="mosquitto answers")
            return f"mqtt://127.0.0.1:{port}"

        yield start


@pytest.fixture
def broker(start_broker) -> str:
    """The URL of a real mosquitto."""
    return start_broker()


@pytest.fixture
def fleet_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a FLEET.toml for a broker; its repository is on this machine too."""

    def write(broker: str) -> Path:
        (tmp_path / "root.json").write_text("{}")
        path = tmp_path / "FLEET.toml"
        path.write_text(
            f'name = "workshop"\n[broker]\nurl = "{broker}"\n'
            '[store]\nurl = "sqlite:///fleet.db"\n[repository]\nurl = "http://127.0.0.1:9"\nroot = "root.json"\n'
        )
        return path

    return write


@pytest.fixture(scope="session")
def wheel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of wheels for the session, so that each set is fetched once."""
    return tmp_path_factory.mktemp("cache")
