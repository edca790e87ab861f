"""The way through torch: exports that compute what the graph does, and ExecuTorch's files made of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch.ao.quantization.fx import _decomposed  # noqa: F401  # registers the operators of quantized exports

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers
from farrier_converters.compilers.fixed import one_row
from farrier_converters.measure import Child

EXPORT = Toolchain("torch-export", "pt2", "torch-export", ("fp32", "int8"))
EXECUTORCH = Toolchain("executorch", "pte", "executorch", ("fp32", "int8"), targets.ARITHMETICS["arm"])


def exported_outputs(path: Path, feeds):
    program = torch.export.load(path).module()
    rows = [program(torch.from_numpy(feeds["x"][i : i + 1]))[0].numpy() for i in range(len(feeds["x"]))]
    return np.concatenate(rows)


def operators(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in torch.export.load(path).graph.nodes:
        if node.op == "call_function":
            name = str(node.target).removesuffix(".default")
            found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export_computes_what_the_graph_does(small, tmp_path, feeds, runtime_outputs):
    made = compilers.get("torch-export").compile(small, EXPORT, tmp_path)
    assert made.options["rows"] == ["x"]
    wanted = runtime_outputs(small, feeds)["y"]
    np.testing.assert_allclose(exported_outputs(made.path, feeds), wanted, rtol=1e-5, atol=1e-5)
    found = operators(made.path)
    assert found["aten.linear"] == 2, "products with stored matrices are the form that back ends match"
    assert not any("resolve" in name or "lift" in name for name in found), found
    with zipfile.ZipFile(made.path) as archive:
        assert not any(b"module.py" in archive.read(name) for name in archive.namelist()), (
            "paths of this machine"
        )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export_keeps_scales_and_integers(small_int8, tmp_path, feeds, runtime_outputs):
    made = compilers.get("torch-export").compile(small_int8, EXPORT, tmp_path)
    found = operators(made.path)
    kinds = [node.op_type for node in small_int8.proto.graph.node]
    assert found["quantized_decomposed.quantize_per_tensor"] == kinds.count("QuantizeLinear")
    wanted = runtime_outputs(small_int8, feeds)["y"]
    assert np.abs(exported_outputs(made.path, feeds) - wanted).max() < 0.05 * np.abs(wanted).max()
    program = torch.export.load(made.path)
    stored = [value for value in program.constants.values() if isinstance(value, torch.Tensor)]
    stored += list(program.state_dict.values())
    assert {value.numel() for value in stored if value.dtype == torch.int8} >= {8 * 27, 8 * 9, 8 * 16, 5 * 16}


def test_a_free_axis_besides_the_batch_is_refused(make_model):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3, "t"]}, ["y"])
    with pytest.raises(InputError, match=r"^axis 2 of the input 'x' is free"):
        one_row(model)


def test_what_has_no_form_in_torch_is_refused(make_model, tmp_path):
    model = make_model([helper.make_node("Det", ["x"], ["y"])], {"x": [1, 2, 2]}, ["y"])
    with pytest.raises(InputError, match=r"^PyTorch refused it: the operator Det"):
        compilers.get("torch-export").compile(model, EXPORT, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_executorch(precision, small, small_int8, tmp_path, feeds, runtime_outputs, tool):
    tool("executorch")
    model = small if precision == "fp32" else small_int8
    made = compilers.get("executorch").compile(model, EXECUTORCH, tmp_path)
    wanted = runtime_outputs(model, feeds)["y"]
    with Child(made.path, "executorch", options=made.options) as child:
        assert child.inputs == small.inputs
        found = child.run(feeds)["y"]
    limit = 1e-5 if precision == "fp32" else 0.05
    np.testing.assert_allclose(found, wanted, atol=limit * np.abs(wanted).max())
    assert not any("conv" in note for note in made.notes), made.notes
