"""Weights of few bits in whole graphs: every form runs in ONNX Runtime and is in the ledger."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import helper

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import passes
from farrier_converters.ledger import ledger
from farrier_converters.model import Model, from_proto, load, save
from farrier_converters.weights.marks import weights_precision
from farrier_converters.weights.moments import second_moments, tap_of, windows
from farrier_converters.weights.sites import CONV, Site

ROOT = Path(__file__).resolve().parents[2]
FOLDED = 3000  # bytes of small constants that cleaning may compute
WAYS = [
    *[("int4", {"bits": bits, "symmetric": even}) for bits in (2, 3, 4, 8) for even in (True, False)],
    ("int4", {"scale_bits": 16, "block": 16}),
    ("int4", {"int8_activations": True}),
    ("nf4", {}),
    ("bf16", {}),
    ("fp8", {}),
    ("fp8", {"kind": "e5m2"}),
    ("fp8", {"activations": True}),
]
# relative error of the outputs: half of what rounding noise of so many bits leads one to expect would be too strict
TOLERANCE = {"bf16": 0.02, "fp8": 0.12, "nf4": 0.3, 8: 0.02, 4: 0.3, 3: 0.6, 2: 1.1}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The example that quantizes a language model."""
    spec = importlib.util.spec_from_file_location("language_model", ROOT / "examples" / "language_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stories(script, shared_data) -> tuple[Model, list[int], ModuleType]:
    """A small Llama that others trained, and the tokens that it is known to write."""
    folder = shared_data / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"no stories260k in {shared_data}")
    spec = importlib.util.spec_from_file_location("stories260k", ROOT / "examples" / "stories260k.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    proto = module.build(*module.read(folder / "stories260K.repaired.bin"))
    golden = json.loads((folder / "golden_tokens_first32.json").read_text())["greedy"]
    return from_proto(proto, "stories260k"), golden, module


def _noise(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def mixed(make_model) -> Model:
    """A table, linear layers of all sorts, one tied to the table, and a convolution."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
        helper.make_node("MatMul", ["embedded", "w1"], ["a"], name="first"),
        helper.make_node("Add", ["a", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["a2"]),
        helper.make_node("Reshape", ["a2", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w2", "b2"], ["g"], name="gemm", transB=1, alpha=0.5, beta=2.0),
        helper.make_node("Relu", ["g"], ["g1"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["g1", "turned"], ["logits"], name="head"),
        helper.make_node("Reshape", ["g1", "picture"], ["p"]),
        helper.make_node("Conv", ["p", "w3"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 1]),
    ]
    constants = {
        "table": _noise(50, 64),
        "w1": _noise(64, 100, seed=1, scale=0.1),
        "b1": _noise(100, seed=2),
        "w2": _noise(64, 100, seed=3, scale=0.1),
        "b2": _noise(64, seed=4),
        "w3": _noise(24, 4, 3, 3, seed=5, scale=0.2),
        "flat": np.array([-1, 100]),
        "picture": np.array([-1, 4, 4, 4]),
    }
    model = make_model(
        nodes, {"ids": ["n", 6]}, ["logits", "c"], constants=constants, dtype=onnx.TensorProto.INT64
    )
    shapes = {"logits": ["m", 50], "c": ["k", 24, 2, 4]}
    del model.proto.graph.output[:]
    for name, shape in shapes.items():
        model.proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    return from_proto(model.proto, "mixed")


def _ids(count=8, seed=0):
    return {"ids": np.random.default_rng(seed).integers(0, 50, (count, 6))}


def _context():
    return passes.Context(calibration=lambda: iter([_ids(seed=1), _ids(seed=2)]))


def _error(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("name", "options"), WAYS, ids=str)
def test_every_precision_runs_and_is_near(mixed, apply, outputs, name, options):
    made = apply(mixed, (name, options), context=_context())
    kind = options.get("bits", 4) if name == "int4" else name
    for found, expected in zip(outputs(made, _ids(seed=3)), outputs(mixed, _ids(seed=3)), strict=True):
        assert found.dtype == expected.dtype
        assert 1e-7 < _error(found, expected) < TOLERANCE[kind]


@pytest.mark.parametrize(("name", "options"), WAYS, ids=str)
def test_a_saved_file_is_read_again_and_cleaning_does_not_widen_it(
    mixed, apply, outputs, tmp_path, name, options
):
    made = apply(mixed, (name, options), context=_context())
    path = tmp_path / "m.onnx"
    save(made, path)
    cleaned = apply(load(path), "clean", "fuse")
    assert len(cleaned.proto.SerializeToString()) <= path.stat().st_size * 1.1 + FOLDED
    for found, expected in zip(outputs(cleaned, _ids()), outputs(made, _ids()), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_ledger_names_what_weights_are_stored_in(mixed, apply):
    def precisions(name, **options):
        made = apply(mixed, (name, options), context=_context())
        entries = ledger(made, targets.host())
        assert len(entries) <= len(mixed.proto.graph.node) + 3  # Gemm became MatMul, Mul and Add
        assert all(entry.reason for entry in entries if entry.precision in ("fp32", "bf16", "fp8"))
        return {entry.name: entry.precision for entry in entries}

    four = precisions("int4")
    assert {four[name] for name in ("first", "gemm")} == {"int4"}
    assert {four[name] for name in ("embed", "head")} == {"int8-weights"}  # tied
    assert four["conv"] == "fp32"  # 864 weights
    three = precisions("int4", bits=3, min_elements=100)
    assert [three[n] for n in ("first", "gemm", "conv")] == ["int3", "int3", "int4"]
    assert precisions("nf4", min_elements=100)["conv"] == "nf4"
    assert precisions("bf16")["gemm"] == "bf16"
    assert precisions("fp8")["first"] == "fp8"
    excluded = precisions("int4", exclude=("first",))
    assert excluded["first"] == "fp32"
    assert excluded["gemm"] == "int4"


def test_tied_weights_are_stored_once(mixed, apply):
    made = apply(mixed, ("int4", {"method": "mse"}))
    packed = [
        t for t in made.proto.graph.initializer if t.data_type == t.UINT8 and len(t.raw_data) >= 50 * 32
    ]
    assert sorted(len(t.raw_data) for t in packed) == sorted([50 * 64, 64 * 50, 100 * 32])
    assert weights_precision(made.proto) == "int4"


def test_rows_that_do_not_fill_their_blocks_cost_no_padding(make_model, apply, outputs):
    weights = {"w": _noise(784, 512, scale=0.05)}
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 784]}, ["y"], constants=weights
    )
    made = apply(model, ("int4", {"method": "rtn"}))
    shrink = len(model.proto.SerializeToString()) / len(made.proto.SerializeToString())
    assert shrink > 7.7
    feeds = {"x": _noise(5, 784)}
    assert _error(outputs(made, feeds)[0], outputs(model, feeds)[0]) < 0.15


def test_methods_that_learn_need_data_and_unknown_options_are_named(mixed, apply):
    for options, said in (
        ({"method": "gptq"}, "needs calibration data"),
        ({"method": "best"}, "unknown rounding method"),
        ({"bits": 5}, "bits, not 5"),
        ({"block": 100}, "blocks have"),
        ({"scale_bits": 4}, "scales have"),
        ({"table_bits": 3}, "tables have"),
    ):
        with pytest.raises(UsageError, match=said):
            apply(mixed, ("int4", options))
    with pytest.raises(UsageError, match="unknown kind of FP8"):
        apply(mixed, ("fp8", {"kind": "e3m4"}))
    with pytest.raises(UsageError, match="need calibration data"):
        apply(mixed, ("fp8", {"activations": True}))


@pytest.mark.parametrize("name", ["int4", "nf4", "fp8"])
def test_weights_that_are_not_finite_are_an_error(make_model, apply, name):
    weights = _noise(64, 64)
    weights[3, 3] = np.nan
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64]}, ["y"], constants={"w": weights}
    )
    with pytest.raises(InputError, match="not finite"):
        apply(model, name)


def test_constants_beyond_bfloat16_and_excluded_ones_stay(make_model, apply, outputs):
    nodes = [
        helper.make_node("Mul", ["x", "huge"], ["a"], name="scale"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="kept"),
    ]
    constants = {"huge": np.full(64, 3.4e38, np.float32), "w": _noise(64, 64)}
    model = make_model(nodes, {"x": [1, 64]}, ["y"], constants=constants)
    made = apply(model, ("bf16", {"exclude": ("kept",)}))
    assert {t.data_type for t in made.proto.graph.initializer} == {onnx.TensorProto.FLOAT}
    reasons = {entry.name: entry.reason for entry in ledger(made, targets.host())}
    assert "does not fit into bfloat16" in reasons["scale"]
    assert reasons["kept"] == "excluded by an option"
    outputs(made, {"x": np.zeros((1, 64), np.float32)})


@pytest.mark.parametrize("attributes", [
    {"pads": [1, 0, 1, 2], "strides": [2, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER"},
    {"dilations": [2, 1]},
], ids=str)  # fmt: skip
def test_windows_are_what_a_convolution_multiplies(make_model, outputs, attributes):
    weights = _noise(5, 3, 3, 2)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    model = make_model([node], {"x": [2, 3, 9, 8]}, ["y"], constants={"w": weights})
    x = _noise(2, 3, 9, 8, seed=1)
    tap = tap_of(Site(node, 1, "w", CONV), 18, (3, 2))
    result = outputs(model, {"x": x})[0]
    found = windows(x, tap) @ weights.reshape(5, -1).T
    np.testing.assert_allclose(found, np.moveaxis(result, 1, -1).reshape(-1, 5), atol=1e-4)
    moments = second_moments(model, [tap], lambda: iter([{"x": x}, {"x": x}]))[tap]
    np.testing.assert_allclose(moments, 2 * windows(x, tap).T @ windows(x, tap), rtol=1e-4, atol=1e-3)


def test_second_moments_do_not_grow_with_the_data(script):
    """Peak memory of a thousand batches is that of a few."""
    import tracemalloc

    shape = script.Shape(20, width=64, layers=1, heads=2, context=64)
    graph = _language_model(script, shape)
    taps = [tap_of(Site(n, 1, "", "linear"), 64) for n in graph.proto.graph.node if n.op_type == "MatMul"][:1]
    ids = np.random.default_rng(0).integers(0, 20, (32, 64))
    peaks = []
    for count in (4, 128):
        tracemalloc.start()
        second_moments(graph, taps, lambda c=count: ({"ids": ids} for _ in range(c)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 32 * 64 * 64 * 4  # bytes of one batch's inputs


def _language_model(script, shape):
    pytest.importorskip("torch")
    import torch

    torch.manual_seed(0)
    weights = {name: value.numpy() for name, value in script._initial(shape).items()}
    return from_proto(script.build(weights, shape), "language-model")


def test_the_exported_language_model_is_the_trained_one(script):
    torch = pytest.importorskip("torch")
    shape = script.Shape(20, width=32, layers=2, heads=2, context=16)
    torch.manual_seed(0)
    weights = script._initial(shape)
    graph = script.build({name: value.numpy() for name, value in weights.items()}, shape)
    ids = np.random.default_rng(0).integers(0, 20, (3, 16))
    expected = script._forward(weights, shape, torch.from_numpy(ids)).numpy()
    from farrier_converters.graph import run

    np.testing.assert_allclose(run.once(graph, {"ids": ids})[0], expected, atol=1e-5)


def test_gptq_and_awq_beat_rounding_on_a_trained_language_model(script, tmp_path):
    """A text with structure, a decoder that learned it: perplexity at 2 bits."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 6))) for _ in range(12)]
    path = tmp_path / "text.txt"
    path.write_text(" ".join(words[i] for i in rng.zipf(1.5, 6000) % 12))
    text = script.read_text(path)
    shape = script.Shape(len(text.alphabet), width=48, layers=2, heads=2, context=24)
    graph = from_proto(script.build(script.train(text, shape, steps=150), shape), "language-model")
    calibration = script.windows(text.train, shape.context, 64, rng)
    held_out = script.windows(text.held_out, shape.context + 1, 100, rng)
    found = {
        method: script.perplexity(
            script.quantize(graph, calibration, method=method, bits=2, block=32), held_out
        )
        for method in ("rtn", "gptq", "awq")
    }
    single = script.perplexity(graph, held_out)
    assert single < len(text.alphabet) / 2
    assert found["gptq"] - single < (found["rtn"] - single) / 2
    assert found["awq"] < found["rtn"]


def test_same_input_same_bytes(mixed, apply):
    made = [apply(mixed, ("int4", {"method": "awq-gptq"}), context=_context()) for _ in range(2)]
    assert len({m.proto.SerializeToString(deterministic=True) for m in made}) == 1


def test_a_graph_of_an_old_operator_set_is_raised(make_model, apply, outputs):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"], name="linear"),
    ]
    constants = {"w": _noise(16, 8, 3, 3), "m": _noise(256, 32)}
    model = make_model(nodes, {"x": [1, 8, 6, 6]}, ["y"], constants=constants, opset=9)
    feeds = {"x": _noise(1, 8, 6, 6)}
    for name in ("int4", "nf4", "bf16", "fp8"):
        made = apply(model, name)
        assert _error(outputs(made, feeds)[0], outputs(model, feeds)[0]) < 0.3
        assert {entry.precision for entry in ledger(made, targets.host()) if entry.op != "Flatten"} == {name}


def test_weights_that_a_branch_reads_stay_readable(make_model, apply, outputs):
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"])], "then", [], [onnx.ValueInfoProto(name="t")]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])], "else", [], [onnx.ValueInfoProto(name="e")]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="outer"),
        helper.make_node("ReduceSum", ["a"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["yes"]),
        helper.make_node("If", ["yes"], ["b"], then_branch=inner, else_branch=other),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    constants = {"w": _noise(64, 64), "zero": np.zeros((), np.float32)}
    model = make_model(nodes, {"x": [2, 64]}, ["y"], constants=constants)
    for sign in (1, -1):
        feeds = {"x": sign * _noise(2, 64, seed=1)}
        for name in ("int4", "nf4", "bf16", "fp8"):
            assert _error(outputs(apply(model, name), feeds)[0], outputs(model, feeds)[0]) < 0.3


@pytest.mark.parametrize("bounds", [None, (0.0, 1.5), (-0.5, None)])
def test_an_activation_before_an_fp8_quantizer_is_not_dropped(make_model, apply, outputs, bounds):
    """ONNX Runtime takes the quantizer's zero for the lowest number, as it is with unsigned integers."""
    constants = {"w": _noise(64, 64, scale=0.1), "v": _noise(64, 64, seed=1, scale=0.1)}
    activation = helper.make_node("Relu", ["a"], ["r"])
    if bounds is not None:
        names = ["low", "high" if bounds[1] is not None else ""]
        constants |= {n: np.array(b, np.float32) for n, b in zip(names, bounds, strict=True) if n}
        activation = helper.make_node("Clip", ["a", *names], ["r"])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        activation,
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["n", 64]}, ["y"], constants=constants)
    feeds = {"x": _noise(40, 64, seed=2)}
    context = passes.Context(calibration=lambda: iter([feeds]))
    made = apply(model, ("fp8", {"activations": True}), context=context)
    assert _error(outputs(made, feeds)[0], outputs(model, feeds)[0]) < 0.1


def test_a_llama_built_by_hand_writes_its_known_tokens_in_float_and_nearly_in_four_bits(
    stories, apply, script
):
    graph, golden, module = stories
    assert module.greedy(graph, [module.BOS], len(golden)) == golden
    assert module.greedy(apply(graph, "bf16"), [module.BOS], 12) == golden[:12]
    rng = np.random.default_rng(0)
    ids = np.array([[module.BOS, *golden]])
    rows = np.concatenate([ids, rng.integers(3, 512, (7, ids.shape[1]))])
    context = passes.Context(calibration=lambda: iter([{"ids": rows}]))
    found = {
        method: script.perplexity(apply(graph, ("int4", {"method": method, "bits": 3}), context=context), ids)
        for method in ("rtn", "gptq", "awq")
    }
    assert found["gptq"] < found["rtn"]
    assert found["awq"] < found["rtn"]


def test_a_file_that_is_no_checkpoint_is_refused(stories, tmp_path):
    path = tmp_path / "x.bin"
    for content in (b"", bytes(28), b"\1\0\0\0" * 7):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.bin"):
            stories[2].read(path)


def test_float16_leaves_alone_what_the_data_makes_too_large(make_model, apply, outputs):
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], name="square"),
        helper.make_node("Sqrt", ["square"], ["root"], name="root"),
        helper.make_node("MatMul", ["root", "w"], ["y"], name="linear"),
    ]
    model = make_model(nodes, {"x": ["n", 8]}, ["y"], constants={"w": _noise(8, 8)})
    feeds = {"x": _noise(4, 8, scale=1000)}
    blind = apply(model, "fp16")
    context = passes.Context(calibration=lambda: iter([feeds]))
    made = apply(model, "fp16", context=context)
    assert {entry.name: entry.precision for entry in ledger(blind, targets.host())}["square"] == "fp16"
    assert _error(outputs(made, feeds)[0], outputs(model, feeds)[0]) < 0.01
    entries = {entry.name: entry for entry in ledger(made, targets.host())}
    assert entries["linear"].precision == "fp16"
    assert "on the calibration data" in entries["square"].reason
    small = passes.Context(calibration=lambda: iter([{"x": feeds["x"] / 1000}]))
    assert apply(model, "fp16", context=small).proto == blind.proto


def test_tables_of_computed_positions_stay(make_model, apply):
    angles = np.arange(64)[:, None] * 10.0 ** -np.linspace(0, 4, 32)
    constants = {"sines": np.sin(angles).astype(np.float32), "learned": _noise(64, 32)}
    nodes = [helper.make_node("Gather", [name, "ids"], [f"{name}_y"], name=name) for name in constants]
    results = [f"{name}_y" for name in constants]
    model = make_model(nodes, {"ids": [3]}, results, constants=constants, dtype=onnx.TensorProto.INT64)
    for output in model.proto.graph.output:
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    made = apply(from_proto(model.proto, "tables"), "int4")
    entries = {entry.name: entry for entry in ledger(made, targets.host())}
    assert entries["sines"].reason == "a table of sines or cosines, not of weights"
    assert entries["learned"].precision == "int4"
