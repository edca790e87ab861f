"""A latency staircase of a device: a real sshd, and the agent's own Python and engines behind it."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import farrier
from farrier import cli
from farrier.flashing.ssh import Remote
from farrier.staircases import device, device_staircase, staircase_for
from farrier_contracts import targets
from farrier_contracts.errors import FarrierError, UsageError
from farrier_converters.pruning.staircase import store
from farrier_converters.pruning.staircase.measure import MeasureSettings

QUICK = MeasureSettings(rounds=1, most_rounds=1, round_ns=1, min_calls=1, max_calls=1, widths=(16, 64))
BOARD = "raspberry-pi-4"
DIGITS = Path(farrier.__file__).parent / "showcase" / "assets" / "digits.onnx"


@pytest.fixture
def remote(device, monkeypatch, tmp_path) -> Remote:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Remote(device.destination, device.port, device.identity, options=device.ssh_options)


def installed(prefix: Path, python: str = sys.executable) -> str:
    """Lay a release out as `farrier flash` does, with an interpreter that has the agent."""
    program = prefix / "releases" / "1" / "venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    program.chmod(0o755)
    (prefix / "current").symlink_to("releases/1")
    return str(prefix)


def left() -> list[Path]:
    return list(Path("/tmp").glob("farrier-time.*"))


@pytest.mark.parametrize(("engine", "precision"), [("onnxruntime", "fp32"), ("litert", "int8")])
def test_a_device_measures_its_own_table(remote, tmp_path, engine, precision):
    pytest.importorskip("ai_edge_litert")
    shares: list[float] = []
    said: list[str] = []
    table = device_staircase(
        remote, engine, precision, target=BOARD, prefix=installed(tmp_path / "agent"), settings=QUICK,
        output=tmp_path / "table.json", progress=lambda stage, share: (said.append(stage), shares.append(share)),
    )  # fmt: skip
    assert set(table.curves) >= {"conv", "strided", "pointwise", "depthwise", "dense", "product", "recurrent"}
    assert (table.engine, table.precision) == (engine, precision)
    assert table.machine.startswith(f"{platform.machine()}, ")
    assert table.version.split()[0] == engine
    assert store.read(tmp_path / "table.json") == table
    assert shares == sorted(shares)
    assert said[-1].endswith(f"kept as the table of {BOARD}")
    board = targets.get(BOARD)
    toolchain = next(t for t in board.toolchains if t.engine == engine)
    assert staircase_for(board, toolchain, precision) == table
    assert not staircase_for(targets.get("raspberry-pi-5"), toolchain, precision).measured
    assert not left()


def test_pruning_for_the_target_goes_by_it(remote, tmp_path, capsys):
    table = device_staircase(remote, target=BOARD, prefix=installed(tmp_path / "agent"), settings=QUICK)
    out = tmp_path / "out"
    given = ["prune", str(DIGITS), "-t", BOARD, "--engine", "onnxruntime", "--ratio", "20%", "-o", str(out)]
    assert cli.main([*given, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == f"measured on {table.measured}"
    assert not [note for note in printed["notes"] if "not measured" in note]


def test_without_an_agent_it_says_how_to_get_one(remote, tmp_path):
    with pytest.raises(FarrierError, match=r"no agent is installed in .*; install one with: farrier flash"):
        device_staircase(remote, prefix=str(tmp_path / "nothing"))


def test_what_the_device_lacks_is_its_own_words(remote, tmp_path):
    prefix = installed(tmp_path / "agent", "/bin/false")
    with pytest.raises(FarrierError, match="could not time onnxruntime: exit code 1"):
        device_staircase(remote, prefix=prefix, settings=QUICK)
    assert not left()


@pytest.mark.parametrize(
    "said", ['print(\'{"ns": [1], "engine": "x"}\')', "print('[' * 100000)", 'print(\'{"ns": "many"}\')']
)
def test_a_device_that_says_nonsense(remote, tmp_path, said):
    script = tmp_path / "liar"
    script.write_text(f"#!{sys.executable}\n{said}\n")
    script.chmod(0o755)
    with pytest.raises(FarrierError, match="could not time"):
        device_staircase(remote, prefix=installed(tmp_path / "agent", str(script)), settings=QUICK)


def test_a_device_that_takes_too_long_is_left_clean(remote, tmp_path, monkeypatch, eventually):
    monkeypatch.setattr(device, "SLACK_S", 0.5)
    settings = replace(QUICK, limit_s=0.1, most_rounds=10_000, rounds=10_000, min_calls=10, max_calls=10)
    with pytest.raises(FarrierError, match="did not finish within"):
        device_staircase(remote, prefix=installed(tmp_path / "agent"), settings=settings)
    eventually(lambda: not left(), limit_s=60, what="its folder goes")


def test_an_engine_that_no_device_is_measured_in(remote):
    with pytest.raises(UsageError, match="these engines are measured: onnxruntime, litert"):
        device_staircase(remote, "tensorrt")
    with pytest.raises(UsageError, match="choose one of"):
        device_staircase(remote, "onnxruntime", "int3", target=BOARD)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--staircase", "--port", "22"], ["--staircase", "-t", BOARD], ["m.onnx", "--on", "me@here"],
        ["--staircase", "--on", "not a host"], ["--staircase", "--on", "me@here", "-t", "nothing"],
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(arguments, capsys):
    assert cli.main(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
