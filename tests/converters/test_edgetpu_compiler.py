"""The Edge TPU's compiler: its log as data, and a stand-in program on the PATH that is called as the real one is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_converters import compilers
from farrier_converters.check import rules
from farrier_converters.compilers.edgetpu import COMPILED, left_on_cpu, parse
from farrier_converters.compilers.edgetpu.compiler import differences, run
from farrier_converters.tflite.file import read

PARTLY = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 2653 ms.

Input model: m.tflite
Input size: 7.31MiB
Output model: m_edgetpu.tflite
Output size: 8.14MiB
On-chip memory used for caching model parameters: 6.08MiB
On-chip memory remaining for caching model parameters: 0.00B
Off-chip memory used for streaming uncached model parameters: 1.70MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 9
Operation log: m_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead
run on the CPU, which is slower.
Number of operations that will run on Edge TPU: 5
Number of operations that will run on CPU: 4

Operator                       Count      Status

CONV_2D                        3          Mapped to Edge TPU
CONV_2D                        1          More than one subgraph is not supported
RESIZE_NEAREST_NEIGHBOR        1          Operation version not supported
QUANTIZE                       1          {limit}
LEAKY_RELU                     1          Operation not supported
MAX_POOL_2D                    2          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
""".format(limit="Operation is otherwise supported, but not mapped due to some unspecified limitation")
FAILED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
ERROR: Attempting to use a delegate that only supports static-sized tensors
Compilation child process completed within timeout period.
Compilation failed!
"""
TOO_LARGE = """\
Edge TPU Compiler version 2.1.302470888
Compilation failed due to large activation tensors in model.
Compilation failed!
"""
NOTHING = "Compilation failed!"
PROGRAM = """\
#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
(here / "called.json").write_text(json.dumps(sys.argv[1:]))
print((here / "log").read_text())
out = pathlib.Path(sys.argv[sys.argv.index("--out_dir") + 1])
made = here / "made.tflite"
if made.exists():
    (out / (pathlib.Path(sys.argv[-1]).stem + "_edgetpu.tflite")).write_bytes(made.read_bytes())
sys.exit(int((here / "code").read_text()))
"""


def test_a_log_of_a_model_that_is_mapped_in_part() -> None:
    log = parse(PARTLY)
    assert (log.version, log.mapped, log.unmapped, log.subgraphs) == ("16.0.384591198", 5, 4, 1)
    assert (log.cache_used, log.cache_left, log.streamed) == (round(6.08 * 2**20), 0, round(1.70 * 2**20))
    assert log.failure is None
    fared = {(status.op, status.count): status.reason for status in log.statuses}
    assert len(log.statuses) == 6
    assert fared["CONV_2D", 3] is None
    assert "comes after" in (fared["CONV_2D", 1] or "")
    assert "newer than the compiler" in (fared["RESIZE_NEAREST_NEIGHBOR", 1] or "")
    assert sum(status.count for status in log.statuses) == 9


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FAILED, "ERROR: Attempting"),
        (TOO_LARGE, "large activation tensors"),
        ("Compilation failed!", "Compilation failed!"),
    ],
)
def test_a_log_of_a_failure_has_its_telling_line(text: str, why: str) -> None:
    assert why in (parse(text).failure or "")


def test_without_totals_the_rows_are_counted() -> None:
    rows = "\n".join(line for line in PARTLY.splitlines() if "will run on" not in line)
    assert (parse(rows).mapped, parse(rows).unmapped) == (5, 4)


def test_text_of_no_log_says_nothing() -> None:
    log = parse("sh: 1: killed\n")
    assert (log.version, log.statuses, log.mapped, log.streamed, log.failure) == (None, (), None, None, None)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a stand-in for edgetpu_compiler on the PATH: it notes its arguments, says `log`, and writes `made`."""

    def make(log: str, *, made: Path | None = None, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "edgetpu_compiler"
        script.write_text(PROGRAM.format(python=sys.executable))
        script.chmod(0o755)
        (folder / "log").write_text(log)
        (folder / "code").write_text(str(code))
        if made is not None:
            (folder / "made.tflite").write_bytes(made.read_bytes())
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return script

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_the_program_is_called_with_the_oldest_runtime_to_serve(
    program: Callable[..., Path], shared_data: Path, out: Path
) -> None:
    coral = shared_data / "coral"
    script = program(PARTLY, made=coral / "mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    path = coral / "mobilenet_v1_0.25_128_quant.tflite"
    made, log = run(str(script), path, out, runtime=14)
    assert made == out / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    assert log.version == "16.0.384591198"
    called = json.loads((script.parent / "called.json").read_text())
    assert called == ["--show_operations", "--min_runtime_version", "14", "--out_dir", str(out), str(path)]


@pytest.mark.parametrize(
    ("log", "code", "why"), [(TOO_LARGE, 1, "large activation"), ("", 3, "exit code 3"), (FAILED, 0, "ERROR")]
)
def test_a_refusal_is_one_sentence(
    program: Callable[..., Path], shared_data: Path, out: Path, log: str, code: int, why: str
) -> None:
    script = program(log, code=code)
    with pytest.raises(InputError, match=why) as caught:
        run(str(script), shared_data / "coral" / "keras_lstm_mnist_ptq.tflite", out)
    assert "\n" not in str(caught.value)
    assert not list(out.iterdir())


def test_what_the_rules_had_wrong_is_said(shared_data: Path) -> None:
    """The compiled DeepLab against a prediction that all of it is mapped, and against the real one."""
    coral = shared_data / "coral"
    original = read(coral / "deeplabv3_mnv2_dm05_pascal_quant.tflite", max_bytes=1 << 28)
    compiled = read(coral / "deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite", max_bytes=1 << 28)
    on_cpu, log = left_on_cpu(original, compiled), parse(PARTLY)
    placements = rules.of_tflite("edgetpu").place(original)
    (streamed,) = differences(original, placements, on_cpu, log)
    assert "do not fit on the chip" in streamed
    wrong, _ = differences(original, placements[:64] + placements[:8], on_cpu, log)
    assert "operator 64 (RESIZE_BILINEAR) stays on the processor: no reason given" in wrong
    assert "operator 65 (QUANTIZE) stays on the processor: of its size, memory or precision" in wrong
    assert "and 5 more" in wrong


def test_a_file_made_of_another_model_is_noticed(shared_data: Path) -> None:
    coral = shared_data / "coral"
    original = read(coral / "mobilenet_v1_0.25_128_quant.tflite", max_bytes=1 << 28)
    other = read(coral / "deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite", max_bytes=1 << 28)
    with pytest.raises(InputError, match="another one"):
        left_on_cpu(original, other)


@pytest.fixture
def small(make_model: Callable[..., Any]) -> Any:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    return make_model(nodes, {"x": [1, 4, 8, 8]}, ["y"], constants={"w": np.ones((4, 4, 1, 1), np.float32)})


def test_without_the_compiler_the_file_is_delivered_as_it_is(
    small: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(out))
    compiled = compilers.get("edgetpu").compile(small, targets.get("coral-usb").toolchains[0], out)
    assert compiled.options["edgetpu"] == {"compiled": False}
    assert all(operator.name != COMPILED for operator in read(compiled.path, max_bytes=1 << 20).operators)
    (note,) = compiled.notes
    assert "apt-get install edgetpu-compiler" in note


def test_with_the_compiler_its_file_is_the_artifact(
    small: Any, out: Path, program: Callable[..., Path], tmp_path: Path
) -> None:
    """The stand-in compiles nothing: what it writes is the file as it was."""
    toolchain = targets.get("coral-usb").toolchains[0]
    beside = tmp_path / "beside"
    beside.mkdir()
    plain = compilers.get("tflite").compile(small, targets.get("coral-usb").toolchains[1], beside)
    program(PARTLY, made=plain.path)
    compiled = compilers.get("edgetpu").compile(small, toolchain, out)
    assert compiled.path.name.endswith("_edgetpu.tflite")
    assert compiled.runs == out / f"{small.name}.tflite"
    facts = compiled.options["edgetpu"]
    assert facts == {
        "compiled": True,
        "compiler": "16.0.384591198",
        "mapped": 5,
        "unmapped": 4,
        "cached_bytes": round(6.08 * 2**20),
        "streamed_bytes": round(1.70 * 2**20),
    }
    assert any("do not fit on the chip" in note for note in compiled.notes)
