"""The README's road from a model file to a fleet, typed as it stands there, on this machine's own loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import farrier
from farrier.collector import parse_broker

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(farrier.__file__).parent / "showcase" / "assets"
LIMIT_S = 280
STOP_LIMIT_S = 20


def commands() -> str:
    """The shell commands of the section."""
    section = (ROOT / "README.md").read_text().split("## From a model file to a fleet")[1]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def replaced(text: str, changes: dict[str, str]) -> str:
    """Put what this machine has in place of what the README can only name; each must stand there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def shell(script: str, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run commands in a shell whose background jobs end with the block."""
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=out, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(STOP_LIMIT_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@pytest.mark.skipif(sys.platform != "linux", reason="agents run on Linux")
@pytest.mark.timeout(LIMIT_S + 100)
def test_from_a_model_file_to_a_fleet(
    tmp_path: Path,
    device,
    start_mosquitto: Callable[..., str],
    free_port: Callable[[], int],
    wheel_cache: Path,
    marked_environment: tuple,
    eventually: Callable[..., object],
) -> None:
    environment, left = marked_environment
    prefix = Path(environment["TMPDIR"]) / "agent"  # short: Unix sockets are made below it
    broker, repository_port = start_mosquitto(), free_port()
    script = replaced(
        commands(),
        {
            "raspberry-pi-4": "host",
            "192.0.2.10:8788": f"127.0.0.1:{repository_port}",
            "--host 0.0.0.0": f"--port {repository_port}",
            "mqtt://192.0.2.10": f"mqtt://127.0.0.1:{parse_broker(broker).port}",
            "farrier dashboard": f"farrier dashboard --port {free_port()}",
            "farrier flash pi@192.0.2.21": " ".join(
                ["farrier flash", *device.arguments, f"--device pi --prefix {prefix} --service plain",
                 "--no-at-boot"]
            ),
        },
    )  # fmt: skip
    shutil.copy(ASSETS / "digits.onnx", tmp_path / "model.onnx")
    shutil.copy(ASSETS / "digits-eval.npz", tmp_path / "eval.npz")
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "FARRIER_CACHE": str(wheel_cache),
    }
    query = [sys.executable, "-m", "farrier", "fleet", "ls", "--json", "--fleet", "fleet/FLEET.toml"]
    try:
        with shell(script, tmp_path, environment) as process:
            code = process.wait(LIMIT_S)
            said = (tmp_path / "log").read_text()
            if "package index cannot be reached" in said:
                pytest.skip("no package index")
            assert code == 0, said
            assert "Traceback" not in said
            listed = json.loads(subprocess.run(query, cwd=tmp_path, capture_output=True, check=True).stdout)
    finally:
        if (control := prefix / "bin" / "farrier-agentctl").exists():
            subprocess.run([control, "stop"], check=True, capture_output=True, timeout=90)
        eventually(lambda: not left(), what="no process is left")
    shown = (tmp_path / "out").read_text()
    assert "model@1.0.0 is published" in shown
    assert re.search(r"^pi +online +model +1\.0\.0 +live", shown, re.MULTILINE), shown
    assert [each["device"] for each in listed] == ["pi"]
