"""Reading ONNX files that may be hostile, and writing them."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts.errors import InputError
from farrier_converters.model import ModelSettings, load, save


def _proto(op: str = "Relu", *, domain: str = "", opset: int = 17, dtype: int = TensorProto.FLOAT, **more):
    node = helper.make_node(op, ["x"], ["y"], domain=domain, **more)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", dtype, ["N", 4])],
        [helper.make_tensor_value_info("y", dtype, ["N", 4])],
    )
    domains = [helper.make_opsetid("", opset)]
    if domain:
        domains.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def _write(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def _sentence(path: Path, **settings: int) -> str:
    with pytest.raises(InputError) as caught:
        load(path, settings=ModelSettings(**settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_specs(tmp_path):
    model = load(_write(tmp_path, _proto()))
    assert model.name == "model"
    assert model.inputs[0].to_dict() == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    assert [spec.name for spec in model.outputs] == ["y"]


def test_missing_folder_and_empty(tmp_path):
    assert "no model at" in _sentence(tmp_path / "absent.onnx")
    assert "is a folder" in _sentence(tmp_path)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    assert "not an ONNX file" in _sentence(empty)


def test_noise_is_refused(tmp_path):
    path = tmp_path / "noise.onnx"
    for seed in range(50):
        path.write_bytes(np.random.default_rng(seed).bytes(200))
        assert str(path) in _sentence(path)


def test_truncation_at_any_byte_is_refused_or_valid(tmp_path, shared_data):
    content = (shared_data / "ultraface/models/onnx/version-RFB-320.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for end in np.random.default_rng(0).integers(1, len(content) - 1, 12):
        path.write_bytes(content[:end])
        assert _sentence(path)


def test_too_large(tmp_path):
    assert "limit of 10" in _sentence(_write(tmp_path, _proto()), max_bytes=10)


def test_unknown_operator_is_named(tmp_path):
    sentence = _sentence(_write(tmp_path, _proto("Reluu")))
    assert "'Reluu'" in sentence
    assert "'ai.onnx', opset 17" in sentence
    assert "'acme'" in _sentence(_write(tmp_path, _proto("Relu", domain="acme")))
    assert "opset 999" in _sentence(_write(tmp_path, _proto(opset=999)))


def test_operator_of_the_runtime_is_known(tmp_path):
    assert load(_write(tmp_path, _proto("Gelu", domain="com.microsoft"))).inputs


def test_operator_newer_than_the_opset(tmp_path):
    assert "'Gelu'" in _sentence(_write(tmp_path, _proto("Gelu", opset=17)))


def test_element_types(tmp_path):
    sentence = _sentence(_write(tmp_path, _proto("Identity", dtype=TensorProto.BFLOAT16)))
    assert "bfloat16" in sentence
    proto = _proto()
    proto.graph.initializer.append(TensorProto(name="w", data_type=77, dims=[1], raw_data=b"0"))
    assert "unknown element type 77" in _sentence(_write(tmp_path, proto))


def test_invalid_graph(tmp_path):
    proto = _proto()
    proto.graph.node[0].input[0] = "nowhere"
    assert "not a valid ONNX graph" in _sentence(_write(tmp_path, proto))


def _external(folder: Path, location: str) -> onnx.ModelProto:
    proto = _proto()
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    proto.graph.initializer.append(weight)
    proto.graph.node.append(helper.make_node("Add", ["x", "w"], ["z"]))
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    (folder / "weights.bin").write_bytes(data)
    return proto


def test_external_data_inside_the_folder(tmp_path):
    model = load(_write(tmp_path, _external(tmp_path, "weights.bin")))
    assert numpy_helper.to_array(model.proto.graph.initializer[0]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/../../weights.bin"])
def test_external_data_outside_the_folder(tmp_path, location):
    inner = tmp_path / "inner"
    inner.mkdir()
    proto = _external(tmp_path, location)
    assert "outside of its own folder" in _sentence(_write(inner, proto))


def test_external_data_missing_linked_or_short(tmp_path):
    path = _write(tmp_path, _external(tmp_path, "weights.bin"))
    (tmp_path / "weights.bin").write_bytes(b"12")
    assert "truncated" in _sentence(path)
    (tmp_path / "weights.bin").unlink()
    assert "not beside it" in _sentence(path)
    (tmp_path / "secret").write_bytes(b"0" * 16)
    (tmp_path / "weights.bin").symlink_to(tmp_path / "secret")
    assert "outside" in _sentence(path)


def test_local_functions_are_inlined(tmp_path):
    proto = _proto("Twice", domain="mine")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, opsets))
    model = load(_write(tmp_path, proto))
    assert [node.op_type for node in model.proto.graph.node] == ["Add"]


def test_save_is_deterministic_and_atomic(tmp_path, resnet20):
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    save(resnet20, first)
    save(load(first), second)
    assert first.read_bytes() == second.read_bytes()
    assert stat.S_IMODE(first.stat().st_mode) == 0o644
    with pytest.raises(FileNotFoundError):
        save(resnet20, tmp_path / "absent" / "c.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_checkpoint_reader_refuses_other_classes(tmp_path, resnet20_script):
    path = tmp_path / "evil.th"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="posix"):
        resnet20_script.read_checkpoint(path)
