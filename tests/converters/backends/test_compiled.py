"""Artifacts of every compiler whose engine runs here, against ONNX Runtime."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers
from farrier_converters.compilers import iree

ARM = targets.ARITHMETICS["arm"]
RUN_HERE = {
    "ort": Toolchain("ort", "ort", "onnxruntime", ("fp32", "int8"), ARM),
    "openvino": Toolchain("openvino", "onnx", "openvino", ("fp32", "int8")),
    "iree": Toolchain("iree", "vmfb", "iree", ("fp32", "int8")),
    "mnn": Toolchain("mnn", "mnn", "mnn", ("fp32",)),
    "tvm": Toolchain("tvm", "so", "tvm", ("fp32", "int8")),
}
BASE = ("ort",)
AARCH64 = b"\xb7\x00"  # the machine in an ELF file


@pytest.fixture(params=RUN_HERE)
def toolchain(request, tool):
    if request.param not in BASE:
        tool(request.param)
    return RUN_HERE[request.param]


def test_float(toolchain, small, feeds, compiled_outputs, runtime_outputs):
    wanted = runtime_outputs(small, feeds)["y"]
    found = compiled_outputs(small, toolchain, feeds)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_integers(toolchain, small_int8, feeds, compiled_outputs, runtime_outputs, tmp_path):
    if "int8" not in toolchain.precisions:
        with pytest.raises(InputError, match="takes no quantized graph"):
            compilers.get(toolchain.compiler).compile(small_int8, toolchain, tmp_path)
        return
    wanted = runtime_outputs(small_int8, feeds)["y"]
    found = compiled_outputs(small_int8, toolchain, feeds)["y"]
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_several_inputs_and_outputs(toolchain, make_model, compiled_outputs, runtime_outputs):
    """In an order that is not that of the names, and one input that every row shares."""
    nodes = [
        helper.make_node("Mul", ["z", "a"], ["p"]),
        helper.make_node("Sub", ["p", "z"], ["c"]),
        helper.make_node("MatMul", ["a", "shared"], ["b"]),
    ]
    model = make_model(nodes, {"z": ["n", 4], "a": ["n", 4], "shared": [4, 4]}, ["c", "b"])
    rng = np.random.default_rng(3)
    feeds = {spec.name: rng.standard_normal((4, 4)).astype(np.float32) for spec in model.inputs}
    found, wanted = compiled_outputs(model, toolchain, feeds), runtime_outputs(model, feeds)
    assert list(found) == ["c", "b"]
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_ort_files_hold_fused_integers(small_int8, tmp_path):
    made = compilers.get("ort").compile(small_int8, RUN_HERE["ort"], tmp_path)
    content = made.path.read_bytes()
    assert content[4:8] == b"ORTM"
    assert b"QLinearConv" in content


def test_ort_leaves_nothing_behind_where_it_refuses(make_model, tmp_path):
    bad = {"w": np.ones((2, 3, 1, 1), np.int64)}
    model = make_model(
        [helper.make_node("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 2, 2]}, ["y"], constants=bad
    )
    with pytest.raises(InputError, match=r"^ONNX Runtime refused it: "):
        compilers.get("ort").compile(model, RUN_HERE["ort"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parameters", "marker"),
    [
        (
            {"triple": "aarch64-unknown-linux-gnu", "cpu": "cortex-a72"},
            b"\xb7\x00",
        ),  # an ELF file's word for AArch64
        ({"device": "vulkan", "chip": "valhall"}, b"vulkan-spirv-fb"),
        ({"device": "cuda", "chip": "sm_87"}, b"cuda-nvptx-fb"),
    ],
)
def test_iree_for_other_machines(parameters, marker, small, tmp_path, tool):
    """Compiled only: nothing here runs them."""
    tool("iree")
    toolchain = Toolchain("iree", "vmfb", "iree", ("fp32",), parameters=parameters)
    made = compilers.get("iree").compile(small, toolchain, tmp_path)
    content = made.path.read_bytes()
    if "triple" in parameters:
        start = content.index(b"\x7fELF")
        assert content[start + 18 : start + 20] == marker
    else:
        assert marker in content


def test_tvm_for_another_machine(small, tmp_path, tool):
    """Compiled only: objects that the other machine's linker takes."""
    tool("tvm")
    parameters = {"triple": "aarch64-linux-gnu", "cpu": "cortex-a72"}
    toolchain = Toolchain("tvm", "tar", "tvm", ("fp32",), parameters=parameters)
    made = compilers.get("tvm").compile(small, toolchain, tmp_path)
    with tarfile.open(made.path) as archive:
        files = [archive.extractfile(entry).read(20) for entry in archive if entry.name.endswith(".o")]
    assert files
    assert all(content[18:20] == AARCH64 for content in files)


def test_iree_knows_its_devices():
    with pytest.raises(UsageError, match="not for 'abacus'"):
        iree.flags({"device": "abacus"})
