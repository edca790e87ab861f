"""Wheels for devices unlike this machine, from the package index."""

from __future__ import annotations

import re

import pytest

from farrier.flashing.plan import Platform
from farrier.flashing.wheels import wheelhouse
from farrier_contracts.errors import FarrierError

PI = Platform("aarch64", (2, 36), (3, 11))
OLD = Platform("aarch64", (2, 31), (3, 9))


def resolve(platform, engines, cache):
    try:
        return wheelhouse.resolve(platform, engines, cache=cache)
    except FarrierError as error:
        if "cannot be reached" in str(error) or "cannot be built" in str(error):
            pytest.skip(f"no package index: {error}")
        raise


def cut_off(monkeypatch):
    """Point pip at an index that nobody serves."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_a_pis_wheels_are_for_a_pi(engine, wheel_cache):
    house = resolve(PI, (engine,), wheel_cache)
    names = {wheel.name.lower().replace("_", "-") for wheel in house.wheels}
    assert {"farrier-agent", "pip", "paho-mqtt", "numpy"} <= names
    assert ("onnxruntime" in names, "ai-edge-litert" in names) == (engine == "onnx", engine == "litert")
    for file in house.files:
        assert file.is_file()
        tags = file.stem.rsplit("-", 1)[1]
        assert tags == "any" or all(tag.endswith("_aarch64") for tag in tags.split(".")), file.name
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\n", house.requirements)) == len(house.wheels) - 1


def test_an_older_python_gets_what_only_it_needs(wheel_cache):
    """pip evaluates `python_version < '3.11'` for the machine it runs on; the device's answer counts."""
    house = resolve(OLD, ("litert",), wheel_cache)
    assert "tomli" in {wheel.name for wheel in house.wheels}
    for wheel in house.wheels:
        glibc = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", wheel.file)]
        assert not glibc or min(glibc) <= 31, wheel.file


def test_the_cache_answers_without_an_index_and_notices_damage(wheel_cache, monkeypatch):
    house = resolve(PI, ("onnx",), wheel_cache)
    cut_off(monkeypatch)
    assert wheelhouse.resolve(PI, ("onnx",), cache=wheel_cache) == house
    victim = next(file for file in house.files if file.name.startswith("paho"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(FarrierError, match="package index cannot be reached"):
        wheelhouse.resolve(PI, ("onnx",), cache=wheel_cache)
    monkeypatch.undo()
    assert resolve(PI, ("onnx",), wheel_cache).digest == house.digest
    assert not [path for path in (wheel_cache / "wheels").iterdir() if path.name.startswith("new-")]


def test_a_package_without_a_wheel_is_named(wheel_cache):
    resolve(PI, ("onnx",), wheel_cache)  # skips where there is no index
    with pytest.raises(
        FarrierError, match=r"^\S+ has no wheel for armv7l, glibc 2\.36, Python 3\.11; "
    ) as caught:
        wheelhouse.resolve(Platform("armv7l", (2, 36), (3, 11)), ("litert",), cache=wheel_cache)
    assert "PIP_EXTRA_INDEX_URL" in str(caught.value)
