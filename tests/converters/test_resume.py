"""A calibration killed at any time goes on where it was, and finds what an undisturbed one finds."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper

from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.quantize.calibrate import CalibrationSettings, observe

CHILD = """
import sys
import numpy as np
from pathlib import Path
from farrier_converters.model import load
from farrier_converters import passes
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.quantize.calibrate import CalibrationSettings
from farrier_contracts.targets import Arithmetic

rows = np.load(sys.argv[2])

def batches():
    for number in range(len(rows) // 4):
        if number == 20:
            print("there", flush=True)
            sys.stdin.readline()  # until it is killed
        yield {"images": rows[4 * number : 4 * number + 4]}

context = passes.Context(Arithmetic("u8"), batches, work=Path(sys.argv[3]))
options = Int8Options(calibration=CalibrationSettings(checkpoint_s=0))
passes.get("int8").run(load(Path(sys.argv[1])), options, context)
"""


def _int8(model, rows, *, work=None, heard=None):
    def batches():
        return ({"images": rows[i : i + 4]} for i in range(0, len(rows), 4))

    def progress(_stage, share):
        if heard is not None:
            heard.append(share)

    context = passes.Context(Arithmetic("u8"), batches, progress=progress, work=work)
    options = Int8Options(calibration=CalibrationSettings(checkpoint_s=0))
    return passes.get("int8").run(model, options, context).proto.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def fused(resnet20, apply):
    return apply(resnet20, "clean", "fuse")


def test_a_killed_calibration_goes_on_with_the_same_result(fused, cifar10, tmp_path):
    rows, work = cifar10[0][:120], tmp_path / "work"
    onnx.save(fused.proto, tmp_path / "net.onnx")
    np.save(tmp_path / "rows.npy", rows)
    arguments = [sys.executable, "-c", CHILD, *(str(tmp_path / n) for n in ("net.onnx", "rows.npy", "work"))]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=30) == -signal.SIGKILL
    assert len(list(work.glob("calibration-*.npz"))) == 1
    undisturbed: list[float] = []
    expected = _int8(fused, rows, heard=undisturbed)
    heard: list[float] = []
    assert _int8(fused, rows, work=work, heard=heard) == expected
    assert len(undisturbed) == 30 + 1
    assert len(heard) == 10 + 1  # twenty of the thirty batches were there


def test_a_finished_calibration_is_not_run_again_and_other_data_is(fused, cifar10, tmp_path):
    rows, other = cifar10[0][:32], cifar10[0][32:64]
    expected = _int8(fused, rows, work=tmp_path)
    heard: list[float] = []
    assert _int8(fused, rows, work=tmp_path, heard=heard) == expected
    assert heard == [1.0]
    heard.clear()
    assert _int8(fused, other, work=tmp_path, heard=heard) == _int8(fused, other)
    assert len(heard) == 8 + 1
    changed = np.concatenate([rows[:-1], other[:1]])
    assert _int8(fused, changed, work=tmp_path) == _int8(fused, changed)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_checkpoint_is_as_good_as_none(make_model, tmp_path, damage):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, ["y"])
    rows = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)

    def found():
        return observe(
            model,
            ["x", "y"],
            batches=lambda: ({"x": rows[i : i + 2]} for i in (0, 2, 4)),
            progress=lambda *_: None,
            settings=CalibrationSettings(folder=tmp_path),
        )

    first = found()
    (path,) = tmp_path.glob("calibration-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again = found()
    for name, observer in first.items():
        assert (observer.counts == again[name].counts).all()
        assert (observer.low, observer.high, observer.seen) == (
            again[name].low,
            again[name].high,
            again[name].seen,
        )
    assert path.read_bytes()[:2] == b"PK"
    assert not list(tmp_path.glob(".*"))


def test_every_chunk_has_a_checkpoint_of_its_own(make_model, tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    model = make_model(nodes, {"x": ["N", 8]}, ["y"])
    rows = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    settings = CalibrationSettings(folder=tmp_path, chunk_elements=8)
    for _ in range(2):
        observe(
            model,
            ["x", "a", "y"],
            batches=lambda: iter([{"x": rows}]),
            progress=lambda *_: None,
            settings=settings,
        )
    assert len(list(tmp_path.iterdir())) == 3
