"""`farrier check`: the function, the command, its document, its exit codes, and how little it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import farrier
from farrier.cli import main
from farrier_contracts import targets
from farrier_contracts.errors import BudgetError, InputError, UsageError

DEEPLAB = "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"
MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"


def save(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Path]:
    """Write an ONNX chain of convolutions; with `tail`, a HardSwish follows."""

    def make(convolutions: int = 2, *, tail: bool = False) -> Path:
        nodes, constants, name = [], {}, "x"
        for index in range(convolutions):
            constants[f"w{index}"] = np.full((4, 4, 1, 1), 0.1, np.float32)
            nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], f"conv{index}"))
            nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
            name = f"r{index}"
        if tail:
            nodes.append(helper.make_node("HardSwish", [name], ["y"], "tail"))
        return save(tmp_path / "m.onnx", nodes, constants, [1, 4, 8, 8])

    return make


def test_the_document_of_a_compiled_model(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shared_data / DEEPLAB), "--target", "coral-usb", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"] == "coral-usb"
    assert document["toolchain"]["compiler"] == "edgetpu"
    assert document["accelerated"]["ops"] == pytest.approx(64 / 72)
    assert [op["index"] for op in document["ops"]] == list(range(72))
    for op in document["ops"]:
        assert {"index", "name", "op", "unit", "reason", "cure", "certain"} <= op.keys()
        assert (op["reason"] is None) == (op["unit"] == "edgetpu")
    parts = document["partitions"]
    assert [part["unit"] for part in parts] == ["edgetpu", "cpu"]
    assert sum(len(part["ops"]) for part in parts) == 72
    assert parts[0]["bytes_in"] == 513 * 513 * 3
    assert parts[0]["bytes_out"] == parts[1]["bytes_in"] == document["crossing_bytes"]
    assert document["memory"]["parameter_bytes"] > 0


def test_the_table_says_the_same(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shared_data / DEEPLAB), "-t", "coral-usb"]) == 0
    said = capsys.readouterr()
    assert "the Edge TPU has no ARG_MAX" in said.out
    assert "maybe: it enlarges 33 times" in said.out
    assert "88.9% of the operators" in said.out
    assert "MiB of parameters" in said.err


@pytest.mark.parametrize(("least", "code"), [("85%", 0), ("0.98", 0), ("99%", 3), ("100%", 3)])
def test_a_least_share_decides_the_exit_code(
    shared_data: Path, capsys: pytest.CaptureFixture[str], least: str, code: int
) -> None:
    """Of 72 operators, seven are maybes: they count as accelerated, so that a guess fails nobody's build."""
    assert main(["check", str(shared_data / DEEPLAB), "-t", "coral-usb", "--min-accelerated", least]) == code
    error = capsys.readouterr().err
    if code:
        assert error.count("\n") == 1
        assert "operator 71 (ARG_MAX" in error
        assert "98.6%" in error


@pytest.mark.parametrize("text", ["much", "150%", "-1", "1.5"])
def test_a_share_is_checked(shared_data: Path, text: str) -> None:
    with pytest.raises(UsageError, match="95%"):
        farrier.check(shared_data / MOBILENET, target="coral-usb", min_accelerated=text)


def test_a_float_graph_is_predicted_as_if_it_were_quantized(network: Callable[..., Path]) -> None:
    result = farrier.check(network(), target="coral-usb")
    assert result.prediction.accelerated.ops == 1
    assert any("as if" in note for note in result.prediction.notes)
    assert [row["op"] for row in result.rows] == ["CONV_2D", "CONV_2D"]
    assert "c0" in result.rows[0]["name"]


def test_what_an_accelerator_lacks_is_named_with_a_cure(network: Callable[..., Path]) -> None:
    document = farrier.check(network(tail=True), target="coral-usb").to_document()
    refused = [op for op in document["ops"] if op["reason"]]
    assert refused
    assert all(op["unit"] == "cpu" for op in refused)


def test_on_a_processor_the_question_is_which_arithmetic(network: Callable[..., Path]) -> None:
    document = farrier.check(network(tail=True), target="x86-vnni", toolchain="onnx").to_document()
    assert [op["reason"] is None for op in document["ops"]] == [True] * 4 + [False]
    assert "HardSwish" in document["ops"][-1]["reason"]
    assert document["accelerated"]["multiply_adds"] == 1


def test_a_quantized_graph_is_taken_as_it_stands(tmp_path: Path) -> None:
    """The first convolution computes in integers, the second was left in float."""
    quantized = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "integer"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"]),
        helper.make_node("Conv", ["cd", "w"], ["y"], "float"),
    ]
    constants = {
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.int8),
        "wq": np.ones((4, 4, 1, 1), np.int8),
        "w": np.ones((4, 4, 1, 1), np.float32),
    }
    path = save(tmp_path / "q.onnx", quantized, constants, [1, 4, 8, 8])
    result = farrier.check(path, target="raspberry-pi-4", toolchain="onnx")
    assert [(row["name"], row["reason"] is None) for row in result.rows] == [
        ("integer", True),
        ("float", False),
    ]
    assert not any("as if" in note for note in result.prediction.notes)


def test_a_toolchain_can_be_chosen_and_the_others_are_listed(shared_data: Path) -> None:
    path = shared_data / MOBILENET
    chosen = farrier.check(path, target="coral-usb", toolchain="tflite")
    assert {row["unit"] for row in chosen.rows} == {"xnnpack", "cpu"}
    document = farrier.check(path, target="coral-usb").to_document()
    assert [other["rules"] for other in document["other_toolchains"]] == ["xnnpack"]
    with pytest.raises(UsageError, match="choose one of: edgetpu, tflite"):
        farrier.check(path, target="coral-usb", toolchain="nope")


def test_every_target_can_be_checked(network: Callable[..., Path]) -> None:
    path = network()
    for name, target in targets.TARGETS.items():
        result = farrier.check(path, target=name)
        assert len(result.others) + len(result.refused) + 1 == len(target.toolchains)
        assert not result.refused, name
        assert json.dumps(result.to_document())


def test_a_model_that_multiplies_nothing_has_no_share_of_multiplications(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, [1, 4])
    assert (
        farrier.check(path, target="x86-vnni", toolchain="onnx").prediction.accelerated.multiply_adds is None
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.tflite", b""),
        ("m.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 60),
        ("m.onnx", b"\x08\x07nonsense"),
        ("none.onnx", None),
    ],
)
def test_bad_files_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["check", str(path), "-t", "coral-usb"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(path) in captured.err


def test_errors_of_the_function_are_those_of_the_command(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown target"):
        farrier.check(shared_data / MOBILENET, target="nowhere")
    with pytest.raises(InputError, match="no model"):
        farrier.check(tmp_path / "none.tflite", target="coral-usb")
    with pytest.raises(BudgetError, match="less than 100"):
        farrier.check(shared_data / DEEPLAB, target="coral-usb", min_accelerated=1.0)


@pytest.mark.parametrize("target", ["coral-usb", "x86-vnni"])
def test_no_engine_is_loaded(network: Callable[..., Path], shared_data: Path, target: str) -> None:
    path = shared_data / MOBILENET if target == "coral-usb" else network(3)
    toolchain = targets.get(target).toolchains[0].compiler
    arguments = ["check", str(path), "-t", target, "--toolchain", toolchain, "--json"]
    script = (
        f"import sys; from farrier.cli import main; code = main({arguments!r});"
        "heavy = {'onnxruntime', 'ai_edge_litert', 'torch', 'tensorflow', 'scipy'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ops"]


def test_brackets_in_names_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"], "[/bold] [red]a")], {}, [1, 4])
    assert main(["check", str(path), "-t", "x86-vnni"]) == 0
    assert "[/bold] [red]a" in capsys.readouterr().out


def test_segments_are_described_and_written(shared_data: Path, tmp_path: Path) -> None:
    path, folder = shared_data / MOBILENET, tmp_path / "segments"
    result = farrier.check(path, target="coral-usb", tpus=2, segments=folder)
    first, second = result.to_document()["segments"]
    assert first["last"] + 1 == second["first"]
    assert first["bytes_out"] == second["bytes_in"]
    names = sorted(file.name for file in folder.iterdir())
    assert names == [f"mobilenet_v1_0.25_128_quant_segment_{i}_of_2.tflite" for i in range(2)]
    for name in names:
        assert farrier.check(folder / name, target="coral-usb").prediction.accelerated.ops == 1


def test_segments_need_a_quantized_tflite_file(network: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    with pytest.raises(UsageError, match="quantize it first"):
        farrier.check(network(4), target="coral-usb", tpus=2, segments=folder)
    with pytest.raises(UsageError, match="no TFLite file"):
        farrier.check(network(4), target="x86-vnni", toolchain="onnx", tpus=2)
    assert not folder.exists()
    assert len(farrier.check(network(4), target="coral-usb", tpus=2).segments) == 2
