"""Real brokers, a real collector process and a real browser for the fleet's tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STOP_LIMIT_S = 20


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Ask the system for a free loopback port."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return server.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def running() -> Callable[..., object]:
    """A context manager that runs a command and leaves no process behind."""

    @contextmanager
    def run(*command: str, log: Path, **options) -> Iterator[subprocess.Popen]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    return run


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@pytest.fixture
def mosquitto(tmp_path: Path, free_port, running, eventually) -> Iterator[str]:
    """The address of a real mosquitto of this test's own."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with running(program, "-c", str(config), log=tmp_path / "mosquitto.log"):
        eventually(lambda: answers(port), what="mosquitto listens")
        yield f"mqtt://127.0.0.1:{port}"


@pytest.fixture
def embedded(tmp_path: Path, free_port, running, eventually) -> Iterator[str]:
    """The address of the project's own embedded broker."""
    pytest.importorskip("amqtt")
    port = free_port()
    with running(
        sys.executable, "-m", "farrier.broker", "--port", str(port), log=tmp_path / "broker.log"
    ) as process:
        eventually(lambda: process.poll() is not None or answers(port), what="the embedded broker listens")
        assert process.poll() is None
        yield f"mqtt://127.0.0.1:{port}"


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> str:
    """Each broker in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def browser() -> Iterator[object]:
    """A headless Chromium."""
    if not Path("/usr/bin/chromedriver").exists() or shutil.which("chromium") is None:
        pytest.skip("chromium and its driver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-sync",
        "--no-first-run",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()
