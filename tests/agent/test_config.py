from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farrier_agent import config
from farrier_contracts.errors import InputError

GOOD = """
device = "edge-1"
fleet = "demo"
state_dir = "state"
[broker]
url = "mqtts://broker.example"
ca = "ca.pem"
[repository]
url = "http://host:8788"
root = "/etc/farrier/root.json"
[telemetry]
interval_s = 2
"""


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(GOOD)
    read = config.load(path)
    assert read.state == tmp_path / "state"
    assert read.broker.address == ("broker.example", 8883)
    assert read.broker.ca == str(tmp_path / "ca.pem")
    assert read.broker.tls
    assert read.repository.url == "http://host:8788"
    assert read.telemetry == config.Telemetry(interval_s=2.0)
    assert read.worker.threads == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("interval_s = 2", "intervall_s = 2"), "'telemetry.intervall_s': did you mean 'interval_s'"),
        (("[telemetry]", "[telemetri]"), "'telemetri': did you mean 'telemetry'"),
        (('device = "edge-1"', ""), "device is missing"),
        (('"edge-1"', '"Edge 1"'), "device must be lower-case"),
        (('"edge-1"', "7"), "device must be a text"),
        (("interval_s = 2", "interval_s = 0"), "telemetry.interval_s must be between"),
        (("interval_s = 2", "interval_s = nan"), "telemetry.interval_s must be between"),
        (("interval_s = 2", "batch_points = 1.5"), "whole number"),
        (("interval_s = 2", "batch_points = true"), "whole number"),
        (("mqtts://broker.example", "http://broker.example"), "broker.url must look like"),
        (("mqtts://broker.example", "mqtt://h:99999"), "broker.url must look like"),
        (("mqtts://broker.example", "mqtt://u:p@h"), "must not hold a password"),
        (('ca = "ca.pem"', 'key = "k.pem"'), "belong together"),
        (("[telemetry]\ninterval_s = 2", '[api]\nhost = "somewhere"'), "api.host"),
        (("[repository]", "repository = 3\n[more]"), "[repository]"),
        (("device", "= device"), "not TOML"),
    ],
)
def test_one_sentence_that_names_file_and_key(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    path = tmp_path / "c.toml"
    text = GOOD.replace(*change, 1)
    if "repository = 3" in text:
        text = "repository = 3\n" + GOOD.replace("[repository]", "[more]", 1)
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        config.load(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value).removeprefix(str(path)) or "TOML" in words


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        config.load(tmp_path / "none.toml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["device", "fleet", "state_dir", "broker", "repository", "api", "worker", "url", "root"]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(keys, values | st.dictionaries(keys, values)))
def test_anything_is_a_config_or_an_input_error(document: dict) -> None:
    with contextlib.suppress(InputError):
        config.parse(document, folder=Path("/tmp"))
