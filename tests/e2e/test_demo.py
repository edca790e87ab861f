"""`farrier demo`, typed as a user would, from its first line to its last, and cut short at any of them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from farrier.showcase.scene import free_port

DEMO = [sys.executable, "-m", "farrier", "demo"]
LIMIT_S = 150
OUTPUTS = {
    "model.farrier",
    "model.onnx",
    "original.onnx",
    "recipe.lock",
    "recipe.toml",
    "report.html",
    "report.json",
}

pytest.importorskip("amqtt", reason="the embedded broker needs amqtt")


def test_the_whole_loop(tmp_path: Path, marked_environment: tuple) -> None:
    environment, left = marked_environment
    out = tmp_path / "out"
    options = ["--devices", "2", "--seconds", "4", "--port", str(free_port()), "--json", "-o", str(out)]
    done = subprocess.run(
        [*DEMO, *options], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["devices"] == 2
    assert summary["requests"] > 50
    assert summary["errors"] == 0
    assert summary["produced"] > 10
    assert summary["received"] + summary["ledgered"] == summary["produced"]
    before, after = summary["baseline"]["metric"]["value"], summary["delivered"]["metric"]["value"]
    assert before > 0.98
    assert before - after <= 0.01
    assert all(device["accuracy"] > 0.95 for device in summary["per_device"])
    assert {path.name for path in out.iterdir()} == OUTPUTS
    assert not left()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    "line", ["optimizing", "signing", "starting 2 agents", "is live", "sending real requests", "stopping"]
)
def test_an_interrupt_leaves_nothing_behind(line: str, tmp_path: Path, marked_environment: tuple) -> None:
    environment, left = marked_environment
    out = tmp_path / "out"
    options = ["--devices", "2", "--seconds", "2", "--port", str(free_port()), "-o", str(out)]
    with subprocess.Popen(
        [*DEMO, *options], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr
        said = []
        for text in process.stderr:
            said.append(text)
            if line in text:
                break
        # a moment later, another one each time: what matters is that no moment is special
        try:
            process.wait(random.random() * 1.5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
        said.append(process.stderr.read())
        process.wait(LIMIT_S)
    words = "".join(said)
    assert process.returncode in (130, 0), words
    assert "Traceback" not in words
    assert not left()
    assert not list((tmp_path / "scratch").iterdir())
    assert not [path for path in tmp_path.iterdir() if path.name not in ("scratch", "out")]
    if out.exists():
        assert {path.name for path in out.iterdir()} == OUTPUTS


def test_a_port_in_use_is_one_sentence(tmp_path: Path, marked_environment: tuple) -> None:
    environment, _ = marked_environment
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*DEMO, "--port", str(port), "-o", str(tmp_path / "out")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == f"farrier: port {port} is in use: choose another one with --port\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--devices", "0"], "--devices must be 1 to 16, not 0"),
        (["--seconds", "0"], "--seconds must be at least 1, not 0"),
        (["--seconds", "nan"], "--seconds must be at least 1, not nan"),
    ],
)
def test_wrong_settings_are_one_sentence(
    options: list[str], sentence: str, marked_environment: tuple
) -> None:
    environment, _ = marked_environment
    done = subprocess.run(
        [*DEMO, *options], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"farrier: {sentence}\n"
