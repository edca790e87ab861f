"""Stored INT8 weights in the form that older releases of TensorRT take, edited on the wire."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

from farrier_agent.engines.tensorrt.weights import as_floats
from farrier_contracts.errors import BundleError


@given(
    weights=hnp.arrays(np.int8, (5, 3), elements=st.integers(-127, 127)),
    axis=st.sampled_from([0, 1, -1, None]),
    data=st.data(),
)
def test_the_same_integers_come_back(stored_model, weights, axis, data):
    shape = () if axis is None else (weights.shape[axis],)
    scale = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(2.0**-30, 1e3, width=32)))
    before = stored_model(weights, scale, axis=axis or 0)
    after = onnx.ModelProto.FromString(as_floats(before.SerializeToString()))
    onnx.checker.check_model(after, full_check=True)
    assert after.producer_name == "tests"
    assert [n.op_type for n in after.graph.node] == [
        "QuantizeLinear",
        *(n.op_type for n in before.graph.node),
    ]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert "w" not in held and held["w/real"].dtype == np.float32
    first = after.graph.node[0]
    assert (list(first.input), list(first.output)) == (["w/real", "ws", "wz"], ["w"])
    along = [1, 1]
    if axis is not None:
        along[axis] = -1
    np.testing.assert_array_equal(np.rint(held["w/real"] / scale.reshape(along)), weights)


def test_the_graph_computes_the_same(stored_model):
    import onnxruntime

    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (6, 4)).astype(np.int8)
    before = stored_model(
        weights, random.uniform(0.01, 0.1, 4).astype(np.float32), axis=1
    ).SerializeToString()
    x = random.normal(size=(2, 6)).astype(np.float32)
    found = [onnxruntime.InferenceSession(m).run(None, {"x": x})[0] for m in (before, as_floats(before))]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_what_has_no_stored_weights_stays_byte_by_byte(conv_net):
    assert as_floats(conv_net.model) == conv_net.model


def test_weights_without_a_stated_zero_point_are_left_to_the_importer(stored_model):
    content = stored_model(np.ones((2, 2), np.int8), np.float32([1, 2]), zero=False).SerializeToString()
    assert as_floats(content) == content


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(stored_model, data):
    content = bytearray(stored_model(np.ones((4, 4), np.int8), np.ones(4, np.float32)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        made = as_floats(bytes(content))
    except BundleError as refused:
        made = str(refused).encode()
    assert len(made) < 10 * len(content) + 200


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b\x00"])
def test_what_is_no_graph_is_one_sentence(content):
    with pytest.raises(BundleError, match="no ONNX file"):
        as_floats(content)
