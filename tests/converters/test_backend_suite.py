"""Cases of the ONNX backend suite, which this project did not make: every pass keeps their answers.

Chosen by rule: every single-node case of the operators below whose tensors are plain arrays, whose expected
outputs ONNX Runtime itself reproduces from the untouched file, and which is no expanded copy of another.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.ledger import ledger
from farrier_converters.model import load, save

# fmt: off
OPERATORS = frozenset([
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose",
    "CumSum", "DepthToSpace", "Div", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten",
    "Floor", "Gather", "GatherElements", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "Log",
    "LSTM", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "OneHot", "Pad", "Pow", "PRelu", "Range",
    "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape",
    "Sigmoid", "Sin", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
    "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
])
# fmt: on
TOLERANCE = 1e-4
AVX2 = targets.get("x86-avx2")


@functools.lru_cache(maxsize=1)
def _cases():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic divides by zero on purpose
        return {case.name: case for case in collect_testcases(None) if _chosen(case)}


def _chosen(case):
    graph = case.model.graph
    return (
        len(graph.node) == 1
        and graph.node[0].op_type in OPERATORS
        and "_expanded" not in case.name
        and all(value.type.HasField("tensor_type") for value in (*graph.input, *graph.output))
        and all(_servable(value) for value in (*graph.input, *graph.output))
        and not any(isinstance(array, list) for pair in case.data_sets for side in pair for array in side)
    )


def _servable(value):
    kinds = onnx.TensorProto
    return value.type.tensor_type.elem_type in (kinds.FLOAT, kinds.INT64, kinds.INT32, kinds.BOOL)


def _first_per_operator(limit):
    """Return the names of the first `limit` cases of each operator."""
    counts: dict[str, int] = {}
    names = []
    for name, case in sorted(_cases().items()):
        op = case.model.graph.node[0].op_type
        counts[op] = counts.get(op, 0) + 1
        if counts[op] <= limit:
            names.append(name)
    return names


def _copy(feeds):
    """ONNX Runtime's BatchNormalization in training mode writes into its inputs."""
    return {name: array.copy() for name, array in feeds.items()}


def test_enough_operators():
    assert len({case.model.graph.node[0].op_type for case in _cases().values()}) >= 60


@pytest.mark.timeout(900)
def test_every_case_is_right_or_refused_in_a_sentence():
    """All cases of all operators, through import, clean and fuse, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.toolchains.backend_suite"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [figure["figure"] for figure in figures] == [
        "backend_suite_crashes", "backend_suite_mismatches", "backend_suite_right",
    ]  # fmt: skip
    assert all(figure["holds"] for figure in figures), done.stdout


@pytest.mark.parametrize("name", _first_per_operator(2))
def test_case(name, tmp_path, apply, outputs):
    case = _cases()[name]
    path = tmp_path / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    model = load(path)
    inputs, expected = case.data_sets[0]
    feeds = {spec.name: np.asarray(array) for spec, array in zip(model.inputs, inputs, strict=True)}
    try:
        original = outputs(model, _copy(feeds))
    except InputError:
        pytest.skip("ONNX Runtime has no kernel for this case")
    if not run.same(original, expected, tolerance=1e-3):
        pytest.skip("ONNX Runtime itself does not give the suite's answer")
    fused = apply(model, "clean", "fuse")
    save(fused, path)
    assert run.same(outputs(load(path), _copy(feeds)), original, tolerance=TOLERANCE)
    half = outputs(apply(fused, "fp16"), _copy(feeds))
    assert [array.dtype for array in half] == [array.dtype for array in original]
    quantized = apply(fused, "int8", context=passes.Context(calibration=lambda: iter([_copy(feeds)])))
    found = outputs(quantized, _copy(feeds))
    assert [array.shape for array in found] == [array.shape for array in original]
    context = passes.Context(calibration=lambda: iter([_copy(feeds)]))
    balanced = apply(fused, "equalize", "centre", ("smooth", {"explicit": True}), context=context)
    assert run.same(outputs(balanced, _copy(feeds)), original, tolerance=TOLERANCE)
    for step in (
        ("int8", {"fit": True}),
        ("int8-weights", {"smallest": 2}),
        ("int8-dynamic", {"smallest": 2}),
    ):
        other = apply(fused, step, "shrink", context=passes.Context(calibration=lambda: iter([_copy(feeds)])))
        results = outputs(other, _copy(feeds))
        assert [(a.shape, a.dtype) for a in results] == [(a.shape, a.dtype) for a in original]
        assert all(entry.reason for entry in ledger(other, AVX2) if entry.precision == "fp32")
    entries = ledger(quantized, AVX2)
    if all(entry.precision != "int8" for entry in entries):
        assert run.same(found, original, tolerance=TOLERANCE)
    assert all(entry.reason for entry in entries if entry.precision == "fp32")
