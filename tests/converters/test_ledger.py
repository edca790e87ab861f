"""The ledger: one entry per operator, with the reason for every float."""

from __future__ import annotations

import pytest

from farrier_contracts import targets
from farrier_converters import passes
from farrier_converters.ledger import ledger
from farrier_converters.model import load

AVX2 = targets.get("x86-avx2")


@pytest.fixture(scope="module")
def quantized(resnet20, cifar10, apply):
    arithmetic = AVX2.toolchains[0].arithmetic
    context = passes.Context(arithmetic=arithmetic, calibration=lambda: iter([{"images": cifar10[0][:32]}]))
    return apply(resnet20, "clean", "fuse", "int8", context=context)


def test_all_of_resnet20_is_integer(quantized):
    entries = ledger(quantized, AVX2)
    assert [entry.index for entry in entries] == list(range(len(entries)))
    assert {entry.unit for entry in entries} == {"cpu"}
    assert {entry.op for entry in entries} == {
        "Conv",
        "Add",
        "Slice",
        "Pad",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    }
    assert {(entry.precision, entry.reason) for entry in entries} == {("int8", None)}


def test_a_float_graph_says_that_it_was_not_quantized(resnet20):
    entries = ledger(resnet20, AVX2)
    assert len(entries) == len(resnet20.proto.graph.node)
    assert {(entry.precision, entry.reason) for entry in entries} == {("fp32", "the graph was not quantized")}


def test_half_precision(resnet20, apply):
    entries = ledger(apply(resnet20, "clean", "fuse", "fp16"), AVX2)
    assert {e.precision for e in entries if e.op != "Cast"} == {"fp16"}


def test_reasons_of_a_mixed_graph(shared_data, apply):
    model = load(shared_data / "ultraface/models/onnx/version-RFB-320.onnx")
    import numpy as np

    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 240, 320)).astype(np.float32)}
    context = passes.Context(calibration=lambda: iter([feeds]))
    entries = ledger(apply(model, "clean", "fuse", ("int8", {"stem": False}), context=context), AVX2)
    convolutions = [e for e in entries if e.op == "Conv"]
    assert [e.precision for e in convolutions] == ["fp32"] + ["int8"] * 51
    assert "stem" in str(convolutions[0].reason)
    assert all(e.reason for e in entries if e.precision == "fp32")
    assert all(e.reason is None for e in entries if e.precision in ("int8", "index"))
    softmax = next(e for e in entries if e.op == "Softmax")
    assert softmax.reason == "no integer kernel for Softmax"


def test_operators_inside_branches_are_listed(shared_data, apply):
    model = load(shared_data / "silero_vad/src/silero_vad/data/silero_vad_16k_op15.onnx")
    import numpy as np

    rng = np.random.default_rng(0)
    feeds = {
        "input": rng.standard_normal((1, 576)).astype(np.float32) / 20,
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16000, np.int64),
    }
    context = passes.Context(calibration=lambda: iter([feeds]))
    entries = ledger(apply(model, "clean", "fuse", "int8", context=context), AVX2)
    recurrent = [entry for entry in entries if entry.op == "LSTM"]
    assert len(recurrent) == 2
    for entry in recurrent:
        assert "_branch/" in entry.name
        assert entry.precision == "fp32"
        assert "branch or a loop" in str(entry.reason)
    assert [entry.index for entry in entries] == list(range(len(entries)))
    assert all(entry.reason for entry in entries if entry.precision == "fp32")
    assert {e.precision for e in entries if e.op in ("Shape", "Equal", "Size")} == {"index"}
