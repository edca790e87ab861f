"""The program that a workstation sends to time networks on a device: whatever Python and agent are there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (
    ROOT / "sdk" / "farrier" / "staircases" / "on_device.py",
    ROOT / "converters" / "farrier_converters" / "pruning" / "staircase" / "turns.py",
)
LIMIT_S = 120


def timed(folder: Path, **plan: object) -> list[dict]:
    """Return what the program says of two models."""
    for path in PROGRAMS:
        shutil.copy(path, folder)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "model.onnx")
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    items = [
        {"path": "model.onnx", "options": {}, "inputs": [x], "outputs": [{**x, "name": "y"}]}
        for _ in range(2)
    ]
    limits = {"rounds": 1, "most_rounds": 2, "settled_rounds": 1, "settled_by": 0.5, "still_share": 1.0}
    calls = {"round_ns": 1, "min_calls": 2, "max_calls": 3}
    document = {"engine": "onnxruntime", "threads": 1, "artifacts": items, **limits, **calls, **plan}
    (folder / "plan.json").write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "on_device.py", "plan.json"],
        cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_says_how_far_it_is_and_then_the_times(tmp_path: Path) -> None:
    *shares, last = timed(tmp_path)
    assert [message["share"] for message in shares] == [0.5]
    assert len(last["ns"]) == 2
    assert all(ns > 0 for ns in last["ns"])
    assert last["engine"]


@pytest.mark.parametrize(
    ("plan", "words"), [({"engine": "abacus"}, "no engine is called 'abacus'"), ({"threads": "many"}, "")]
)
def test_what_goes_wrong_is_one_message(tmp_path: Path, plan, words) -> None:
    (message,) = timed(tmp_path, **plan)
    assert words in message["error"]
