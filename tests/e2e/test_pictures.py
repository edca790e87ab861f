"""A kept demo, looked at in a browser: the dashboard and the report. The README's pictures come from here.

`make pictures` sets FARRIER_PICTURES to docs/images; without it they go to the test's own folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from farrier.showcase.scene import free_port

SECONDS = 30  # of requests: long enough for curves
LIMIT_S = 150
WINDOW = (1280, 900)

pytest.importorskip("amqtt", reason="the embedded broker needs amqtt")
pytest.importorskip("selenium")


@dataclass
class KeptDemo:
    """A demo that runs on, with what it said so far."""

    address: str
    out: Path
    process: subprocess.Popen[str]


@pytest.fixture
def kept_demo(tmp_path: Path, marked_environment: tuple) -> Iterator[KeptDemo]:
    environment, _ = marked_environment
    out = tmp_path / "out"
    options = ["--keep", "--seconds", str(SECONDS), "--port", str(free_port()), "-o", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "farrier", "demo", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        said = ""
        for line in process.stderr:
            said += line
            if "keeps running" in line:
                break
        found = re.search(r"dashboard at (http\S+)", said)
        assert found, said
        yield KeptDemo(found[1], out, process)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(LIMIT_S) == 0


def picture(browser: object, folder: Path, name: str, *, height: int | None = None) -> None:
    from selenium.webdriver.chrome.webdriver import WebDriver

    assert isinstance(browser, WebDriver)
    full = browser.execute_script("return document.documentElement.scrollHeight")
    browser.set_window_size(WINDOW[0], min(full, height or full))
    path = folder / f"{name}.png"
    assert browser.save_screenshot(str(path))
    assert path.stat().st_size > 10_000


def test_a_kept_demo_in_the_browser(
    kept_demo: KeptDemo, browser, tmp_path: Path, eventually: Callable[..., object]
) -> None:
    folder = Path(os.environ.get("FARRIER_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    browser.set_window_size(*WINDOW)
    browser.get(kept_demo.address)

    def text() -> str:
        return browser.find_element("tag name", "main").text

    eventually(lambda: text().count("live") >= 3, what="three live devices on the page")
    eventually(lambda: text().count("balanced") >= 3, what="three balanced accounts")
    picture(browser, folder, "dashboard", height=640)
    browser.find_element("css selector", "[data-device=edge-1]").click()
    eventually(lambda: len(browser.find_elements("css selector", "svg.chart")) >= 3, what="the charts")
    assert "digits" in text()
    picture(browser, folder, "device")

    browser.get((kept_demo.out / "report.html").as_uri())
    body = browser.find_element("tag name", "body").text
    assert "is delivered" in body
    assert len(browser.find_elements("css selector", "svg")) >= 3
    picture(browser, folder, "report")
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
