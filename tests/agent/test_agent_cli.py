from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farrier_contracts import __version__
from farrier_contracts.bundle import Artifact, Manifest, build
from farrier_contracts.tensors import TensorSpec

CONFIG = """
device = "edge-1"
fleet = "demo"
state_dir = "state"
[broker]
url = "mqtt://127.0.0.1:1"
[repository]
url = "repo"
root = "root.json"
"""


def agent(*arguments: object, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "farrier_agent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG)
    (tmp_path / "root.json").write_text("{}")
    return path


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("farrier-agent: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_version() -> None:
    assert agent("version").stdout.strip() == __version__


def test_wrong_usage() -> None:
    for arguments in ((), ("dance",), ("run",)):
        done = agent(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_a_wrong_configuration(config: Path) -> None:
    refused(agent("run", "--config", config.parent / "none.toml"), "none.toml does not exist")
    config.write_text(CONFIG.replace("state_dir", "stat_dir"))
    refused(agent("run", "--config", config), "'stat_dir'", "did you mean 'state_dir'")


def test_no_root_of_trust(config: Path) -> None:
    (config.parent / "root.json").unlink()
    refused(agent("run", "--config", config), "root.json does not exist")


def test_missing_broker_certificate(config: Path) -> None:
    text = CONFIG.replace('url = "mqtt://127.0.0.1:1"', 'url = "mqtts://127.0.0.1:1"\nca = "none.pem"')
    config.write_text(text)
    refused(agent("run", "--config", config), "certificate files cannot be used")


def test_a_state_folder_that_is_a_file(config: Path) -> None:
    (config.parent / "state").write_text("x")
    refused(agent("run", "--config", config), "the state folder", "cannot be used")


def test_two_agents_on_one_state_folder(config: Path, eventually: Callable[..., object]) -> None:
    assert json.loads(agent("status", "--config", config).stdout)["process"] == 0
    log = config.parent / "log"
    command = [sys.executable, "-m", "farrier_agent", "run", "--config", str(config)]
    with log.open("w") as file, subprocess.Popen(command, stderr=file) as first:
        eventually(lambda: "cannot be used: connection refused" in log.read_text())
        refused(agent("run", "--config", config), f"process {first.pid}", "already uses", "stop it first")
        status = agent("status", "--config", config)
        assert status.returncode == 0
        assert json.loads(status.stdout)["process"] == first.pid
        first.terminate()
        assert first.wait(60) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting needs root")
def test_a_full_disk_at_start_is_one_sentence(config: Path) -> None:
    state = config.parent / "state"
    state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k,nr_inodes=4", "tmpfs", str(state)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mount is not allowed here")
    try:
        refused(agent("run", "--config", config), "No space left on device")
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_check_and_infer_of_a_bundle(tmp_path: Path) -> None:
    import numpy as np

    manifest = Manifest(
        name="zeros",
        version="1",
        inputs=(TensorSpec("x", "FP32", (-1, 2)),),
        outputs=(TensorSpec("y", "FP32", (-1, 3)),),
        artifacts=(Artifact("model", "null", "null", "fp32", "null"),),
    )
    bundle, arrays = tmp_path / "z.farrier", tmp_path / "x.npz"
    build(bundle, manifest, {"model": b"nothing"})
    np.savez(arrays, x=np.ones((4, 2), np.float32))
    checked = agent("check", bundle)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["name"] == "zeros"
    done = agent("infer", bundle, "--input", arrays, "--output", tmp_path / "y.npz")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["shape"] == [4, 3]
    with np.load(tmp_path / "y.npz") as outputs:
        assert outputs["y"].shape == (4, 3)

    refused(agent("check", tmp_path / "none.farrier"), "none.farrier does not exist")
    bundle.write_bytes(bundle.read_bytes()[:-5])
    refused(agent("check", bundle), "z.farrier")
    refused(agent("infer", bundle, "--input", tmp_path / "none.npz"))
