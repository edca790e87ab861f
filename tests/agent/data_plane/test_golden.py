"""The golden check and the comparison under it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from farrier_agent import golden
from farrier_agent.arrays import read_npz, worst_excess
from farrier_agent.runtime import Runtime
from farrier_contracts.errors import BundleError, InputError
from farrier_contracts.tensors import TensorSpec

numbers = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20), st.floats(0, 10), st.floats(0, 0.5))
def test_the_worst_excess_is_that_of_the_worst_element(pairs, atol, rtol):
    got, want = (np.array(column) for column in zip(*pairs))
    one_by_one = [abs(g - w) - (atol + rtol * abs(w)) for g, w in pairs]
    assert worst_excess(got, want, atol=atol, rtol=rtol) == pytest.approx(max(0.0, *one_by_one), abs=1e-9)


@pytest.mark.parametrize(
    ("got", "want", "excess"),
    [
        ([math.nan], [math.nan], 0.0),
        ([math.inf], [math.inf], 0.0),
        ([math.nan], [1.0], math.inf),
        ([1.0], [math.nan], math.inf),
        ([-math.inf], [math.inf], math.inf),
        ([math.inf], [1.0], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ([], [], 0.0),
    ],
)
def test_values_that_are_no_numbers(got, want, excess):
    assert worst_excess(np.array(got), np.array(want), atol=0.1, rtol=0.1) == excess


def test_one_flipped_sensitive_weight_is_refused(make_bundle, conv_net, inputs_of):
    """The model's own outputs as golden vectors; then one bit of one weight's exponent is flipped."""
    x = inputs_of(2, 4)["x"]
    vectors = {"in.x": x, **{f"out.{name}": a for name, a in conv_net.direct({"x": x}).items()}}
    honest = make_bundle(conv_net.model, conv_net.inputs, conv_net.outputs, max_batch=4, golden=vectors)
    with Runtime(honest) as runtime:
        assert runtime.golden_cases == 4
    weight = np.random.default_rng(0).normal(size=(8, 1, 3, 3)).astype(np.float32).tobytes()[:4]
    at = conv_net.model.index(weight) + 3
    flipped = bytearray(conv_net.model)
    flipped[at] ^= 0x40
    bundle = make_bundle(bytes(flipped), conv_net.inputs, conv_net.outputs, max_batch=4, golden=vectors)
    with pytest.raises(BundleError, match="golden check failed"):
        Runtime(bundle)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"in.x": None}, r"lack 'in\.x'"),
        ({"out.best": None}, r"lack 'out\.best'"),
        ({"in.x": np.zeros((2, 1, 8, 8), np.float32)}, "number of cases"),
        ({"in.x": np.zeros(3, np.float32)}, "wrong rank"),
    ],
)
def test_golden_arrays_that_do_not_fit_are_refused(make_bundle, conv_net, inputs_of, change, sentence):
    x = inputs_of(2, 3)["x"]
    vectors = {"in.x": x, **{f"out.{name}": a for name, a in conv_net.direct({"x": x}).items()}, **change}
    vectors = {name: array for name, array in vectors.items() if array is not None}
    bundle = make_bundle(conv_net.model, conv_net.inputs, conv_net.outputs, golden=vectors)
    with pytest.raises(BundleError, match=sentence):
        Runtime(bundle)


def test_cases_may_be_whole_tensors(make_bundle, conv_net, inputs_of):
    cases = [inputs_of(seed, 2) for seed in range(3)]
    vectors = {"in.x": np.stack([case["x"] for case in cases])}
    for name in ("scores", "best"):
        vectors[f"out.{name}"] = np.stack([conv_net.direct(case)[name] for case in cases])
    bundle = make_bundle(conv_net.model, conv_net.inputs, conv_net.outputs, golden=vectors)
    assert golden.check(bundle, conv_net.direct) == 3


def test_npz_files_of_unknown_origin(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="does not exist"):
        read_npz(path)
    for content in (b"", b"nonsense", b"PK\3\4 nonsense"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not an"):
            read_npz(path)
    np.savez(path, x=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        read_npz(path)
    np.savez_compressed(path, x=np.zeros(1 << 20))
    with pytest.raises(InputError, match="above the limit"):
        read_npz(path, max_bytes=1 << 20)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            read_npz(path)


def test_inputs_without_axes(make_bundle):
    """A sample rate as a scalar tensor: one value per case in the golden file, an array without axes in a run."""
    nodes = [helper.make_node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Mul", ["x", "r"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "scalar",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("rate", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x, rates = np.ones((3, 1, 4), np.float32), np.array([1, 2, 3], np.int64)
    vectors = {"in.x": x, "in.rate": rates, "out.y": x * rates[:, None, None].astype(np.float32)}
    inputs = [TensorSpec("x", "FP32", (1, 4)), TensorSpec("rate", "INT64", ())]
    bundle = make_bundle(model.SerializeToString(), inputs, [TensorSpec("y", "FP32", (1, 4))], golden=vectors)
    with Runtime(bundle) as runtime:
        assert runtime.golden_cases == 3
        outputs = runtime.infer({"x": x[0], "rate": np.asarray(np.int64(5))})
        assert outputs["y"].tolist() == [[5.0] * 4]
