"""The connection to a device: a real sshd, and every way it can refuse us."""

from __future__ import annotations

import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from farrier.flashing.ssh import Connection, Remote
from farrier_contracts.errors import FarrierError, MissingToolError


@pytest.fixture
def remote(device) -> Remote:
    return Remote(device.destination, device.port, device.identity, options=device.ssh_options)


def refused(remote: Remote) -> str:
    with pytest.raises(FarrierError) as caught, Connection(remote):
        pytest.fail("connected")
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_commands_share_one_connection(remote):
    lines: list[str] = []
    with Connection(remote) as connection:
        output = connection.run(
            'printf "%s|" "$@"; cat; echo " end"; echo low >&2; exit 3',
            ["a b", "c'd\"$HOME", ""],
            limit_s=20,
            feed=lambda pipe: pipe.write(b"fed") and None,
            on_line=lines.append,
        )
        again = connection.run("echo $SSH_CONNECTION", limit_s=20)
        third = connection.run("echo $SSH_CONNECTION", limit_s=20)
    assert output.stdout == "a b|c'd\"$HOME||fed end"
    assert (output.stderr, output.code, lines) == ("low", 3, [output.stdout])
    assert again.stdout == third.stdout != ""


def test_much_in_both_directions(remote):
    """Neither side waits for the other with full pipes."""
    data = b"x" * 79 + b"\n"

    def feed(pipe):
        for _ in range(20_000):
            pipe.write(data)

    with Connection(remote) as connection:
        output = connection.run("tee /dev/stderr | wc -c", limit_s=60, feed=feed)
    assert output.stdout.strip() == str(20_000 * 80)


def test_a_command_that_reads_nothing_leaves_the_feeder_alone(remote):
    with Connection(remote) as connection:
        output = connection.run("exit 4", limit_s=20, feed=lambda pipe: pipe.write(b"x" * (8 << 20)) and None)
    assert output.code == 4


def test_a_command_has_a_limit(remote):
    with Connection(remote) as connection, pytest.raises(FarrierError, match="did not finish within"):
        connection.run("exec sleep 60", limit_s=0.5)


def test_wrong_key(remote, tmp_path, ssh_key):
    assert "refused the key" in refused(replace(remote, identity=ssh_key(tmp_path / "other")))


def test_unknown_host_key(remote, tmp_path):
    options = (f"UserKnownHostsFile={tmp_path / 'none'}", "GlobalKnownHostsFile=/dev/null")
    assert "--accept-new-host-key" in refused(replace(remote, options=options))
    with Connection(replace(remote, options=options, accept_new_host_key=True)) as connection:
        assert connection.run("echo in", limit_s=20).stdout == "in"
    with Connection(replace(remote, options=options)) as connection:  # known from now on
        assert connection.run("echo in", limit_s=20).stdout == "in"


def test_changed_host_key(remote, tmp_path, ssh_key):
    other = ssh_key(tmp_path / "host").with_suffix(".pub").read_text()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{remote.port} {other}")
    options = (f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null")
    for accept in (False, True):
        assert "ssh-keygen -R" in refused(replace(remote, options=options, accept_new_host_key=accept))


def test_closed_port(remote):
    with socket.socket() as bound:  # bound and not listening: nobody else gets this port
        bound.bind(("127.0.0.1", 0))
        sentence = refused(replace(remote, port=bound.getsockname()[1]))
    assert "nothing listens" in sentence


def test_unknown_name(remote):
    assert "unknown" in refused(replace(remote, destination="me@no-such-host.invalid"))


def test_what_listens_is_no_ssh_server(remote, broker):
    """A broker where sshd should be: some sentence, and no hanging."""
    assert "127.0.0.1" in refused(replace(remote, port=int(broker.rpartition(":")[2])))


def test_no_ssh_client(remote, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingToolError, match="openssh-client"), Connection(remote):
        pytest.fail("connected")


def test_nothing_is_left_behind(remote):
    before = masters()
    with Connection(remote) as connection:
        folder = Path(connection._folder.name)
        assert folder.stat().st_mode & 0o077 == 0
        assert len(masters()) == len(before) + 1
    assert not folder.exists()
    assert masters() == before


def masters() -> set[str]:
    if shutil.which("pgrep") is None:
        pytest.skip("pgrep is not installed")
    done = subprocess.run(["pgrep", "-f", "farrier-ssh-"], capture_output=True, text=True, check=False)
    return set(done.stdout.split())
