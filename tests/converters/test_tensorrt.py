"""The artifact for TensorRT: same integers in a form that it imports, and a recipe that says how to build."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from farrier_contracts.engine_build import EngineBuild, Profile
from farrier_contracts.errors import InputError
from farrier_contracts.targets import ARITHMETICS, get
from farrier_converters import compilers, passes
from farrier_converters.compilers.tensorrt.halves import halved, shortened
from farrier_converters.compilers.tensorrt.lower import lowered
from farrier_converters.compilers.tensorrt.sparsity import follows_pattern, sparse_layers
from farrier_converters.graph import run
from farrier_converters.graph.compact.shrink import shrink
from farrier_converters.graph.edit import Graph, standard
from farrier_converters.model import load

ORIN = get("jetson-orin").toolchains[0]
NANO = get("jetson-nano").toolchains[0]


def _quantized(apply, model, feeds, arithmetic="tensorrt"):
    context = passes.Context(arithmetic=ARITHMETICS[arithmetic], calibration=lambda: iter([feeds]))
    return apply(model, "clean", "fuse", "int8", context=context)


def _with(toolchain, **parameters):
    return replace(toolchain, parameters={**toolchain.parameters, **parameters})


@pytest.fixture(scope="module")
def quantized_resnet20(resnet20, cifar10, apply):
    return _quantized(apply, resnet20, {"images": cifar10[0][:32]})


def test_the_lowered_graph_computes_the_same_bits(quantized_resnet20, cifar10):
    made = lowered(shrink(quantized_resnet20))
    graph = Graph(made)
    for node in graph.nodes:
        if standard(node, "DequantizeLinear"):  # nothing but pairs and stored weights is left
            weights = graph.constant(node.input[0])
            assert weights is not None or standard(graph.producer[node.input[0]], "QuantizeLinear")
            assert graph.constant(node.input[2]).dtype == np.int8
            assert not graph.constant(node.input[2]).any()
        if standard(node, "Conv", "Gemm"):
            assert len(node.input) < 3 or graph.constant(node.input[2]).dtype == np.float32
    rows = {"images": cifar10[0][:8]}
    before, after = run.once(quantized_resnet20.proto, rows)[0], run.once(made.proto, rows)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * np.abs(before).max())


@pytest.mark.parametrize(
    ("arithmetic", "words"),
    [("x86-vnni", "zero point other than 0|uint8"), ("arm", "zero point other than 0")],
)
def test_other_arithmetics_are_refused_by_name(resnet20, cifar10, apply, tmp_path, arithmetic, words):
    model = _quantized(apply, resnet20, {"images": cifar10[0][:8]}, arithmetic)
    with pytest.raises(InputError, match=words):
        lowered(model)
    with pytest.raises(InputError, match="symmetric"):
        compilers.get("tensorrt").compile(model, ORIN, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_artifact_has_a_recipe(quantized_resnet20, tmp_path, cifar10):
    compiled = compilers.get("tensorrt").compile(quantized_resnet20, ORIN, tmp_path)
    recipe = EngineBuild.from_dict(compiled.options["build"])
    assert recipe == EngineBuild(
        profiles={"images": Profile((1, 3, 32, 32), (1, 3, 32, 32), (16, 3, 32, 32))},
        precisions=("fp16", "int8"),
    )
    assert compiled.path.stat().st_size < 0.35 * 4 * 270_000  # bytes of its weights in float32
    rows = {"images": cifar10[0][:4]}
    written = run.once(load(compiled.path).proto, rows)[0]
    assert (written.argmax(1) == run.once(quantized_resnet20.proto, rows)[0].argmax(1)).all()


def test_the_recipe_follows_the_board_and_the_graph(resnet20, quantized_resnet20, apply, tmp_path):
    compiler = compilers.get("tensorrt")

    def recipe(model, toolchain):
        return EngineBuild.from_dict(compiler.compile(model, toolchain, tmp_path).options["build"])

    assert recipe(resnet20, ORIN).precisions == ()
    assert recipe(apply(resnet20, "clean", "fuse", "fp16"), NANO).precisions == ("fp16",)
    wide = recipe(resnet20, _with(ORIN, most_rows=64, workspace=1 << 30))
    assert wide.profiles["images"].most[0] == 64 and wide.workspace == 1 << 30
    on_dla = recipe(resnet20, _with(ORIN, dla_core=1))
    assert (on_dla.dla_core, on_dla.gpu_fallback) == (1, True)
    typed = recipe(quantized_resnet20, _with(ORIN, tensorrt="11.4.1"))
    assert typed.strongly_typed and not typed.precisions


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"dla_core": 0}, "DLA of TensorRT 10.3 takes no graph with quantizers"), ({}, "no INT8")],
)
def test_what_a_board_cannot_do_is_one_sentence(quantized_resnet20, tmp_path, parameters, words):
    toolchain = _with(ORIN, **parameters) if parameters else NANO
    with pytest.raises(InputError, match=words):
        compilers.get("tensorrt").compile(quantized_resnet20, toolchain, tmp_path)


def test_a_free_dimension_besides_the_batch_is_one_sentence(make_model, tmp_path):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3, "width"]}, ["y"])
    with pytest.raises(InputError, match="dimension 2 of x is free"):
        compilers.get("tensorrt").compile(model, ORIN, tmp_path)


def test_an_operator_without_an_importer_is_named(make_model, tmp_path):
    node = helper.make_node("Det", ["x"], ["y"], name="determinant")
    model = make_model([node], {"x": [2, 3, 3]}, ["y"])
    with pytest.raises(
        InputError, match=r"determinant \(Det\): the ONNX importer of TensorRT 10.3 has no Det"
    ):
        compilers.get("tensorrt").compile(model, ORIN, tmp_path)


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("LayerNormalization", {"s": (6,), "b": (6,)}),
        ("Mish", {}),
        ("HardSwish", {}),
    ],
)
def test_operators_of_newer_releases_are_written_in_simpler_ones(make_model, tmp_path, op, constants):
    random = np.random.default_rng(4)
    values = {name: random.standard_normal(shape).astype(np.float32) for name, shape in constants.items()}
    model = make_model(
        [helper.make_node(op, ["x", *values], ["y"])], {"x": [2, 3, 5, 6]}, ["y"], constants=values, opset=20
    )
    toolchain = _with(ORIN, tensorrt="8.2.1")
    compiled = compilers.get("tensorrt").compile(model, toolchain, tmp_path)
    written = load(compiled.path)
    assert op not in {node.op_type for node in written.proto.graph.node}
    x = random.standard_normal((2, 3, 5, 6)).astype(np.float32)
    before, after = run.once(model.proto, {"x": x})[0], run.once(written.proto, {"x": x})[0]
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_half_precision_leaves_no_cast_between_integers_and_their_operator(quantized_resnet20, cifar10):
    made = halved(lowered(quantized_resnet20))
    graph = Graph(made)
    onnx.checker.check_model(made.proto)
    for node in graph.nodes:
        if standard(node, "Conv", "Gemm"):
            assert all(standard(graph.producer[n], "DequantizeLinear") for n in node.input[:2])
            assert graph.constant(node.input[2]).dtype == np.float16
    assert sum(standard(n, "Cast") for n in graph.nodes) == 1  # of the logits
    rows = {"images": cifar10[0][:64]}
    before, after = run.once(quantized_resnet20.proto, rows)[0], run.once(made.proto, rows)[0]
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.96
    assert np.abs(before - after).max() < 0.1 * np.abs(before).max()


@given(
    integers=hnp.arrays(np.int8, (4, 6), elements=st.integers(-127, 127)),
    scale=hnp.arrays(np.float32, (4, 1), elements=st.floats(2.0**-60, 8.0, width=32)),
)
def test_half_precision_weights_are_as_near_as_their_scales_allow(integers, scale):
    values, short = shortened(integers, scale)
    assert (short >= scale).all() and (short <= scale * 1.001 + 2.0**-24).all()
    assert np.abs(values.astype(int)).max() <= 127
    weights = integers * scale.astype(np.float64)
    assert (np.abs(values * short.astype(np.float64) - weights) <= short * 0.501).all()


@given(weights=hnp.arrays(np.float32, (3, 8, 2), elements=st.floats(-1, 1, width=32)), keep=st.integers(1, 4))
def test_pruned_weights_have_the_pattern_and_others_have_not(weights, keep):
    weights = np.where(weights == 0, np.float32(0.5), weights)
    order = np.argsort(-np.abs(weights.reshape(3, 2, 4, 2)), axis=2, kind="stable")
    ranks = np.argsort(order, axis=2, kind="stable").reshape(weights.shape)
    pruned = np.where(ranks < keep, weights, np.float32(0))
    assert follows_pattern(pruned, 1) == (keep <= 2)
    assert not follows_pattern(pruned[:, :7], 1)


def test_sparse_layers_are_found_and_flagged_where_the_gpu_has_kernels(make_model, apply, tmp_path):
    weights = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)
    pruned = weights * np.tile([1, 0, 0, 1], 2).reshape(1, 8, 1, 1).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "p"], ["y"]),
    ]
    model = make_model(nodes, {"x": [1, 8, 9, 9]}, ["y"], constants={"w": weights, "p": pruned})
    assert sparse_layers(Graph(model)) == ["y"]
    x = np.random.default_rng(1).standard_normal((1, 8, 9, 9)).astype(np.float32)
    quantized = _quantized(apply, model, {"x": x})
    assert sparse_layers(Graph(quantized)) == ["y"]
    assert sparse_layers(Graph(lowered(quantized))) == ["y"]
    compiler = compilers.get("tensorrt")
    assert compiler.compile(quantized, ORIN, tmp_path).options["build"]["sparse"]
    assert not compiler.compile(quantized, _with(ORIN, sm=72), tmp_path).options["build"]["sparse"]
