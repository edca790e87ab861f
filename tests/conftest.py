"""Fixtures that every kind of test may use."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WAIT_LIMIT_S = 60.0
WAIT_STEP_S = 0.02


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data sets, beside the repository (or FARRIER_SHARED_DATA)."""
    folder = Path(os.environ.get("FARRIER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """Wait until a condition holds: polls `condition()` until it is truthy, and returns that value."""

    def wait(condition: Callable[[], object], *, limit_s: float = WAIT_LIMIT_S, what: str = "") -> object:
        deadline = time.monotonic() + limit_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {limit_s:g} s: {what or condition}")
            time.sleep(WAIT_STEP_S)

    return wait


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
