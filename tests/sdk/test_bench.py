"""`farrier bench` on ONNX, TFLite and bundles."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import farrier
from farrier import cli
from farrier_contracts import bundle
from farrier_contracts.errors import BundleError, InputError, UsageError
from farrier_contracts.tensors import TensorSpec
from farrier_converters import npz
from farrier_converters.measure import LatencySettings

QUICK = LatencySettings(rounds=2, most_rounds=2, round_s=0.002)


def matmul(path, batch):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [8, 4], np.ones(32, np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_free_batches(tmp_path):
    figures = farrier.bench(matmul(tmp_path / "m.onnx", "n"), settings=QUICK)
    assert [f.latency.batch for f in figures.batches] == [1, 4, 8]
    assert figures.engine.startswith("onnxruntime ")
    for f in figures.batches:
        assert f.latency.throughput > 0
        assert f.latency.cpu_us_per_item > 0
        assert f.peak_memory_bytes > 0


def test_a_fixed_batch_takes_no_other(tmp_path):
    path = matmul(tmp_path / "m.onnx", 2)
    assert [f.latency.batch for f in farrier.bench(path, settings=QUICK).batches] == [2]
    with pytest.raises(InputError, match="batch of 4"):
        farrier.bench(path, batch=[4], settings=QUICK)


def test_a_bundle_runs_with_its_golden_inputs(tmp_path):
    artifact = matmul(tmp_path / "m.onnx", "n")
    golden = npz.to_bytes({"in.x": np.ones((2, 8), np.float32), "out.y": np.full((2, 4), 8, np.float32)})
    manifest = bundle.Manifest(
        name="m",
        version="1",
        inputs=(TensorSpec("x", "FP32", (-1, 8)),),
        outputs=(TensorSpec("y", "FP32", (-1, 4)),),
        artifacts=(bundle.Artifact("m.onnx", "onnx", "onnxruntime", "fp32", "x86-avx2"),),
        golden=bundle.Golden("golden.npz", {"y": 0.0}),
    )
    path = tmp_path / "m.farrier"
    bundle.build(path, manifest, {"m.onnx": artifact, "golden.npz": golden})
    assert [f.latency.batch for f in farrier.bench(path, batch=[1, 3], settings=QUICK).batches] == [1, 3]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BundleError):
        farrier.bench(path)


def test_tflite(shared_data):
    found = sorted((shared_data / "ultraface" / "tflite").rglob("*.tflite"))
    figures = farrier.bench(found[0], batch=[1], settings=QUICK)
    assert figures.engine.startswith("litert ")
    assert figures.batches[0].latency.p50_ms > 0


def test_the_command(tmp_path, capsys):
    path = str(matmul(tmp_path / "m.onnx", "n"))
    assert cli.main(["bench", path, "--batch", "1,2", "--threads", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["threads"] == 2
    for figures, size in zip(document["batches"], (1, 2), strict=True):
        assert figures["batch"] == size
        assert {"latency_ms", "throughput", "cpu_us_per_item", "peak_memory_bytes"} <= set(figures)
    assert cli.main(["bench", path, "--batch", "1"]) == 0
    assert "rows/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["absent.onnx"], ["absent.tflite"], ["absent.farrier"], ["model.txt"], ["m.onnx", "--batch", "x"]],
)
def test_wrong_input_is_one_sentence(arguments, capsys):
    assert cli.main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"batch": []}, {"batch": [0]}])
def test_wrong_usage(wrong, tmp_path):
    with pytest.raises(UsageError):
        farrier.bench(matmul(tmp_path / "m.onnx", "n"), **wrong)
