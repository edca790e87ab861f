"""Sparse weights in fewer bytes: the same bits in the engine, and never a larger file."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper
from sparse_models import classifier, make

from farrier_contracts import targets
from farrier_converters import compilers, passes
from farrier_converters.compilers.tflite.convert import convert
from farrier_converters.graph import run
from farrier_converters.measure import Child
from farrier_converters.model import Model, load, save
from farrier_converters.passes.sparsify import SparsifyOptions, sparsify
from farrier_converters.sparsity.pack import joined, packed, split, unpacked, with_sparse_initializers
from farrier_converters.tflite.file import read
from farrier_converters.tflite.write import write
from farrier_converters.tflite.zeros import rows_of, with_sparse_weights


def sparse_model(ratio: float, shape: tuple[int, ...] = (64, 96), dtype: type = np.float32) -> Model:
    """One product and a table, of which the first is sparse."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(shape).astype(dtype)
    w[rng.random(shape) < ratio] = 0
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    return make(nodes, {"x": ["N", shape[0]]}, ["y"], {"w": w})


def size(model: Model) -> int:
    return len(model.proto.SerializeToString())


@given(
    arrays.arrays(
        st.sampled_from([np.dtype("f4"), np.dtype("f2"), np.dtype("i1"), np.dtype("u1")]),
        st.integers(0, 3000),
        elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 2]),
        fill=st.just(0),
    )
)
@settings(max_examples=100, deadline=None)
def test_values_and_distances_are_the_array(flat):
    distances, values = split(flat)
    assert distances.dtype == np.uint8
    assert (distances > 0).all()
    assert np.array_equal(joined(distances, values, flat.size), flat)


def test_negative_zeros_and_long_runs_survive_to_the_bit():
    flat = np.zeros(2000, np.float32)
    flat[[0, 255, 256, 1999]] = 1.5, -0.0, 2.5, 3.5
    distances, values = split(flat)
    assert np.array_equal(joined(distances, values, 2000).view(np.uint32), flat.view(np.uint32))
    assert len(values) == 4 + (1999 - 256 - 1) // 255


@pytest.mark.parametrize("store", [packed, with_sparse_initializers])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_the_engine_computes_the_same_from_fewer_bytes(store, ratio, tmp_path):
    model = sparse_model(ratio)
    made = store(model)
    feeds = run.sample(model)
    assert np.array_equal(run.once(model.proto, feeds)[0], run.once(made.proto, feeds)[0])
    assert size(made) <= size(model)
    if ratio == 0.9:
        assert size(made) < {"packed": 0.2, "with_sparse_initializers": 0.4}[store.__name__] * size(model)
    save(made, tmp_path / "made.onnx")
    onnx.checker.check_model(str(tmp_path / "made.onnx"))
    assert load(tmp_path / "made.onnx").proto == made.proto


def test_a_whole_network_stays_the_same_to_the_bit_and_dense_ones_stay_as_they_are():
    dense = classifier()
    assert packed(dense) is dense
    made = sparsify(dense, SparsifyOptions(ratio=0.9), passes.Context()).model
    feeds = run.sample(made)
    small = passes.get("pack-zeros").run(made, passes.get("pack-zeros").options(), passes.Context())
    assert size(small) < size(made)
    assert np.array_equal(run.once(made.proto, feeds)[0], run.once(small.proto, feeds)[0])


def test_integer_weights_are_packed_and_keep_their_kernels(apply, integer_kernels):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((32, 16, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    model = sparsify(
        make(nodes, {"x": ["N", 16, 8, 8]}, ["y"], {"w": w}), SparsifyOptions(ratio=0.9), passes.Context()
    ).model
    feeds = [{"x": rng.standard_normal((4, 16, 8, 8)).astype(np.float32)} for _ in range(3)]
    model = apply(model, "clean", "fuse", "int8", context=passes.Context(calibration=lambda: iter(feeds)))
    small = packed(model)
    assert size(small) < 0.7 * size(model)
    assert np.array_equal(run.once(model.proto, feeds[0])[0], run.once(small.proto, feeds[0])[0])
    kernels = integer_kernels(small)
    assert kernels == integer_kernels(model)
    assert kernels["QLinearConv"] == 1


def test_what_an_output_shows_or_an_old_operator_set_holds_stays():
    model = sparse_model(0.9)
    model.proto.graph.output.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64, 96]))
    assert packed(model) is model
    old = sparse_model(0.9)
    old.proto.opset_import[0].version = 9
    assert packed(old) is old


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0])
def test_unpacking_gives_the_model_back(ratio):
    model = sparse_model(ratio)
    assert unpacked(model) is model
    again = unpacked(packed(model))
    assert [n.op_type for n in again.proto.graph.node] == ["MatMul"]
    assert again.proto.graph.initializer == model.proto.graph.initializer


def test_onnx_and_tflite_files_of_packed_models_are_small_and_compute_the_same(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    dense = sparsify(classifier(), SparsifyOptions(ratio=0.9), passes.Context()).model
    small = packed(dense)
    feeds = {"images": np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)}
    wanted = run.once(dense.proto, feeds)[0]
    for engine in ("onnxruntime", "litert"):
        toolchain = next(t for t in targets.get("x86-vnni").toolchains if t.engine == engine)
        sizes = []
        for model in (dense, small):
            (folder := tmp_path / f"{engine}-{len(model.proto.graph.node)}").mkdir()
            made = compilers.get(toolchain.compiler).compile(model, toolchain, folder)
            sizes.append(made.path.stat().st_size)
            with Child(made.path, engine, options=made.options) as child:
                assert np.allclose(child.run(feeds)["logits"], wanted, atol=1e-5)
        assert sizes[1] < 0.8 * sizes[0]


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 400)),
        elements=st.sampled_from([1.0, -2.0]),
        fill=st.just(0),
    )
)
@settings(max_examples=50, deadline=None)
def test_rows_of_a_sparse_tensor_hold_all_of_it(dense):
    rows = rows_of(dense)
    again = np.zeros_like(dense)
    for row, (start, end) in enumerate(itertools.pairwise(rows.ends.tolist())):
        again[row, rows.places[start:end]] = rows.values[start:end]
    assert np.array_equal(again, dense)


def test_a_sparse_tflite_file_is_read_and_only_weights_of_one_layer_become_sparse(tmp_path):
    model = sparse_model(0.9)
    file = with_sparse_weights(convert(model)[0])
    path = tmp_path / "sparse.tflite"
    path.write_bytes(write(file))
    found = read(path, max_bytes=1 << 20)
    assert found.operators[0].name == "DENSIFY"
    assert [t.shape for t in found.tensors if t.sparse] == [(96, 64)]
    dense = convert(sparse_model(0.5))[0]
    assert with_sparse_weights(dense) == dense


def test_tensorrt_finds_the_pattern_in_packed_weights(tmp_path):
    model = packed(sparsify(classifier(), SparsifyOptions(pattern="2:4"), passes.Context()).model)
    assert {"ScatterElements", "CumSum"} <= {node.op_type for node in model.proto.graph.node}
    toolchain = targets.get("jetson-orin").toolchains[0]
    made = compilers.get(toolchain.compiler).compile(model, toolchain, tmp_path)
    assert made.options["build"]["sparse"]
    assert "ScatterElements" not in {node.op_type for node in load(made.path).proto.graph.node}
