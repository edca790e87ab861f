"""What `farrier collect` says where it cannot work."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from farrier.cli import main


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (
            ("--broker", "mqtt://127.0.0.1:{closed}", "--store", "sqlite:///{folder}/x.db"),
            1,
            "no broker answers",
        ),
        (("--broker", "http://h", "--store", "sqlite:///{folder}/x.db"), 2, "mqtt://host:1883"),
        (("--broker", "mqtt://h:99999", "--store", "sqlite:///{folder}/x.db"), 2, "mqtt://host:1883"),
        (("--broker", "mqtt://127.0.0.1", "--store", "redis://x"), 2, "sqlite:///name.db"),
        (("--broker", "mqtt://127.0.0.1", "--store", "sqlite:///{folder}/no/x.db"), 2, "does not exist"),
        (
            ("--broker", "mqtt://127.0.0.1", "--store", "sqlite:///{folder}/x.db", "--fleet", "No!"),
            2,
            "fleet's name",
        ),
    ],
)
def test_wrong_input_is_one_sentence(options, code, words, tmp_path, free_port, capsys):
    filled = [option.format(closed=free_port(), folder=tmp_path) for option in options]
    result = subprocess.run(
        [sys.executable, "-c", "import sys; from farrier.cli import main; sys.exit(main())",
         "collect", *filled, "--connect-timeout", "0.3"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_second_collector_on_one_store_is_refused(mosquitto, collector, tmp_path, eventually, capsys):
    with collector(mosquitto):
        eventually(
            lambda: "connected" in (tmp_path / "collector.log").read_text(), what="the first collector"
        )
        assert main(["collect", "--broker", mosquitto, "--store", f"sqlite:///{tmp_path}/fleet.db"]) == 1
    assert "another collector" in capsys.readouterr().err


def test_a_broker_that_refuses_is_one_sentence(tmp_path, running, free_port, eventually, capsys):
    if not Path("/usr/sbin/mosquitto").exists():
        pytest.skip("mosquitto is not installed")
    port = free_port()
    (tmp_path / "m.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with running("/usr/sbin/mosquitto", "-c", str(tmp_path / "m.conf"), log=tmp_path / "m.log"):
        eventually(listens, what="mosquitto listens")
        result = subprocess.run(
            [sys.executable, "-m", "farrier", "collect", "--broker", f"mqtt://127.0.0.1:{port}",
             "--store", f"sqlite:///{tmp_path}/x.db"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "refuses the collector" in result.stderr


def test_what_is_no_broker_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "farrier", "collect", "--broker", f"mqtt://127.0.0.1:{port}",
             "--store", f"sqlite:///{tmp_path}/x.db", "--connect-timeout", "0.5"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "does not answer" in result.stderr
