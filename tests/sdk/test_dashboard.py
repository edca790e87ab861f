"""The dashboard as a browser sees it: refused without its token, every device, curves that grow."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier.cli import main
from farrier.fleet.metrics import Curve
from farrier.store import writing
from farrier.web import charts
from farrier_contracts.wire.documents import Reported, RunningDeployment, State
from farrier_contracts.wire.telemetry import Batch, Clock, Point, Statement

SECOND = 10**9
TOKEN = "a-token-for-tests"


def fill(store, name: str, count: int, *, first: int = 0) -> None:
    """Add a point a second up to now, as a device would have sent them."""
    now = time.time_ns()
    values = {"inference.requests{digits}": 30, "inference.latency.p50{digits}": 0.002,
              "inference.latency.p99{digits}": 0.005, "inference.cache.hits{digits}": 10,
              "inference.cache.misses{digits}": 20}  # fmt: skip
    with store.transaction():
        row = writing.device_id(store, "demo", name)
        writing.seen(store, row, now)
        writing.set_state(store, row, State(True, 1, "boot-1"))
        stream = writing.stream_id(store, row, "boot-1", "inference")
        points = tuple(Point(first + i, (first + i) * SECOND, values) for i in range(count))
        offset = now - (first + count) * SECOND
        writing.add_batch(store, stream, Batch("boot-1", 0, Clock(0, 0), points), wall_offset_ns=offset)
        statement = Statement("boot-1", "inference", first + count)
        writing.set_statement(store, row, statement)
        live = RunningDeployment("digits", "digits", "1.0.0", "sha256:0", "live", "http://127.0.0.1:1")
        writing.set_reported(store, row, Reported(1, (live,), (statement,)).to_document())


@pytest.fixture
def served(tmp_path, fleet_store, running, free_port, eventually):
    """The address of a dashboard over a store with three devices."""
    for name in ("press", "camera", "turbine"):
        fill(fleet_store, name, 60)
    port = free_port()
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    command = (sys.executable, "-m", "farrier", "dashboard", "--store", f"sqlite:///{tmp_path}/fleet.db",
               "--port", str(port), "--token-file", str(secret))  # fmt: skip
    log = tmp_path / "dashboard.log"
    with running(*command, log=log) as process:
        eventually(lambda: process.poll() is not None or "http://" in log.read_text(), what="the dashboard")
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    assert process.returncode == 0
    assert TOKEN not in log.read_text()


def ask(url: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    """One request, redirects not followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        connection.request(
            "GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", headers=headers
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


PATHS = ("/", "/fragments/fleet", "/devices/demo/press", "/api/fleet", "/api/devices/demo/press/curves",
         "/static/style.css", "/nowhere")  # fmt: skip


def test_nothing_is_shown_without_the_token(served):
    for path in PATHS:
        for headers in ({}, {"Cookie": "farrier_token=wrong"}, {"Authorization": "Bearer wrong"}):
            status, _, body = ask(served + path, **headers)
            assert status == 401
            assert "press" not in body
        assert ask(f"{served}{path}?token=wrong")[0] == 401


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(served):
    status, headers, _ = ask(f"{served}/devices/demo/press?span=1h&token={TOKEN}")
    assert status == 303
    assert headers["location"] == "/devices/demo/press?span=1h"
    assert "HttpOnly" in headers["set-cookie"]
    assert "samesite=strict" in headers["set-cookie"].lower()
    status, headers, _ = ask(f"{served}//elsewhere.example/?token={TOKEN}")
    assert headers["location"].startswith("/elsewhere")


def test_every_answer_carries_the_security_headers(served):
    cookie = {"Cookie": f"farrier_token={TOKEN}"}
    expected = [200, 200, 200, 200, 200, 200, 404]
    for path, wanted in zip(PATHS, expected, strict=True):
        status, headers, body = ask(served + path, **cookie)
        assert status == wanted, path
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "<script>" not in body
        assert "style=" not in body
    assert ask(f"{served}/devices/demo/nobody", **cookie)[0] == 404
    assert ask(f"{served}/static/../pages.py", **cookie)[0] == 404


def test_the_api_tells_what_the_command_line_tells(served):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    facts = json.loads(ask(f"{served}/api/fleet", **bearer)[2])
    assert [each["device"] for each in facts["devices"]] == ["camera", "press", "turbine"]
    assert facts["totals"]["received"] == facts["totals"]["produced"] == 180
    assert facts["devices"][0]["performance"]["requests_per_s"] == pytest.approx(30)
    curves = json.loads(ask(f"{served}/api/devices/demo/press/curves?span=5m", **bearer)[2])
    assert set(curves["inference.latency.p99"]["values"]) == {0.005}
    status, _, body = ask(f"{served}/api/devices/demo/nobody", **bearer)
    assert (status, list(json.loads(body))) == (404, ["error"])


def test_a_browser_sees_the_fleet_and_a_device(served, browser, fleet_store, eventually, tmp_path):
    from selenium.webdriver.common.by import By

    def texts(selector: str) -> list[str]:
        return [each.text for each in browser.find_elements(By.CSS_SELECTOR, selector)]

    browser.get(served)
    assert "token" in browser.find_element(By.TAG_NAME, "body").text
    assert not texts(".card")
    browser.get(f"{served}/?token={TOKEN}")
    assert "token" not in browser.current_url
    assert [each.get_attribute("data-device") for each in browser.find_elements(By.CSS_SELECTOR, ".card")] == [
        "camera", "press", "turbine",
    ]  # fmt: skip
    assert texts(".phase") == ["live"] * 3
    browser.set_window_size(390, 844)
    width, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    browser.find_element(By.CSS_SELECTOR, "[data-device=press]").click()
    eventually(lambda: browser.current_url.endswith("/devices/demo/press"), what="the device's page")
    eventually(lambda: len(browser.find_elements(By.CSS_SELECTOR, "svg.chart")) >= 3, what="the charts")
    assert "60 points stored, balanced" in browser.find_element(By.TAG_NAME, "main").text

    def curve() -> str:
        script = "return document.querySelector('svg.chart polyline.p99')?.getAttribute('points') || ''"
        return browser.execute_script(script)

    before = curve()
    assert before
    fill(fleet_store, "press", 5, first=60)
    eventually(lambda: curve() not in ("", before), what="a curve that changed by itself")
    eventually(
        lambda: "65 points stored" in browser.find_element(By.TAG_NAME, "main").text,
        what="the new points counted",
    )
    assert [
        each
        for each in browser.get_log("browser")
        if each["level"] == "SEVERE" and "401" not in each["message"]
    ] == []


def test_values_from_devices_are_escaped(served, fleet_store):
    evil = "<script>alert(1)</script>"
    with fleet_store.transaction():
        row = writing.device_id(fleet_store, "demo", "press")
        failed = RunningDeployment("digits", evil, evil, "", "failed", evil, evil)
        writing.set_reported(fleet_store, row, Reported(1, (failed,)).to_document())
        writing.set_birth(fleet_store, row, {evil: evil})
        writing.add_event(fleet_store, row, "swap", wall_ns=1, document={"detail": evil})
    for path in ("/", "/devices/demo/press"):
        status, _, body = ask(served + path, Cookie=f"farrier_token={TOKEN}")
        assert status == 200
        assert evil not in body
        assert "&lt;script&gt;" in body


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--token", "short"), 2, "at least 8"),
        (("--token", "x" * 20, "--token-file", "t"), 2, "give one"),
        (("--token-file", "missing"), 2, "cannot read a token"),
        (("--store", "sqlite:///no/x.db"), 2, "does not exist"),
        (("--store", "oracle://x"), 2, "sqlite:///name.db"),
    ],
)
def test_wrong_input_is_one_sentence(options, code, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard", "--store", "sqlite:///x.db", "--port", "0", *options]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sentence in said


def test_a_port_in_use_is_one_sentence(served, tmp_path, capsys):
    port = str(urlsplit(served).port)
    assert main(["dashboard", "--store", f"sqlite:///{tmp_path}/fleet.db", "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


def test_without_a_token_one_is_made_and_printed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "farrier", "dashboard", "--store", f"sqlite:///{tmp_path}/x.db", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        address = process.stdout.readline().strip()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address, timeout=20) as answer:
            assert "No devices yet" in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(address.partition("?")[0], timeout=20)
        refused.value.close()
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "farrier dashboard: open in a browser\n")


@given(st.floats(1e-9, 1e15))
def test_ticks_are_few_and_reach_above_the_data(highest):
    ticks = charts.nice_ticks(highest)
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 6
    assert ticks[-1] >= highest * (1 - 1e-6)
    assert ticks[-1] <= highest * 2.5


@given(st.integers(10**18, 2 * 10**18), st.integers(30, 200_000))
def test_time_ticks_lie_within_the_span(since, seconds):
    ticks = charts.time_ticks(since, since + seconds * SECOND)
    assert len(ticks) <= 6
    assert all(since <= at <= since + seconds * SECOND for at, _ in ticks)


def test_a_chart_without_data_says_so_and_breaks_at_gaps():
    options = {"since_ns": 0, "until_ns": 100, "words": str, "title": "A <b>"}
    assert "nothing measured" in charts.chart([charts.Line("x", "p50", Curve("x", 1, (), ()))], **options)
    curve = Curve("x", 1, (1, 2, 3, 50, 51), (1.0, 2.0, 1.0, 5.0, 5.0))
    drawn = charts.chart([charts.Line("x", "p50", curve)], **options)
    assert drawn.count("<polyline") == 2
    assert "A &lt;b&gt;" in drawn
