"""Engine processes: real ones, killed, stopped and starved."""

from __future__ import annotations

import os
import signal

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from farrier_contracts import targets
from farrier_contracts.errors import MissingToolError, UsageError
from farrier_contracts.tensors import TensorSpec
from farrier_converters import data, metrics
from farrier_converters import measure as measuring
from farrier_converters.measure import Child, ChildSettings, EngineFailure, LatencySettings, engines, frames

QUICK = LatencySettings(rounds=3, most_rounds=3, round_s=0.002, max_calls=20)


def save(path, nodes, inputs, outputs):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def doubler(tmp_path):
    return save(
        tmp_path / "double.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )


@pytest.fixture
def hungry(tmp_path):
    """A model that makes as many floats as it is told to."""
    return save(
        tmp_path / "hungry.onnx",
        [helper.make_node("ConstantOfShape", ["n"], ["y"])],
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )


def rows(count):
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def dataset(count, spec=TensorSpec("x", "FP32", (-1, 3))):
    return data.Dataset((spec,), {"x": rows(count)}, np.arange(count), labels=rows(count) * 2)


def test_runs_and_times(doubler):
    with Child(doubler, "onnxruntime") as child:
        assert child.engine_version.startswith("onnxruntime ")
        assert child.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
        assert np.array_equal(child.run({"x": rows(4)})["y"], rows(4) * 2)
        nanoseconds, cpu = child.time({"x": rows(1)}, 10)
        assert nanoseconds.shape == (10,)
        assert (nanoseconds > 0).all()
        assert cpu > 0


def test_a_wrong_input_is_an_error_that_the_process_survives(doubler):
    with Child(doubler, "onnxruntime") as child:
        with pytest.raises(EngineFailure, match="refused"):
            child.run({"x": np.zeros((2, 2), np.float32)})
        with pytest.raises(EngineFailure, match="refused"):
            child.run({"z": rows(1)})
        assert child.run({"x": rows(1)})["y"].shape == (1, 3)


def test_memory_is_the_growth_over_an_empty_process(hungry):
    with Child(hungry, "onnxruntime") as child:
        child.run({"n": np.array([1 << 20])})
        small = child.peak_bytes()
        child.run({"n": np.array([1 << 24])})
        grown = child.peak_bytes() - small
    assert grown > 0.9 * 4 * ((1 << 24) - (1 << 20))


def test_a_process_that_wants_too_much_memory_is_refused_it(hungry):
    share = (512 << 20) / (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with (
        Child(hungry, "onnxruntime", ChildSettings(memory_share=share)) as child,
        pytest.raises(EngineFailure),
    ):
        child.run({"n": np.array([1 << 30])})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_dead_process_is_a_reason_not_a_crash(doubler, number):
    with Child(doubler, "onnxruntime") as child:
        os.kill(child.pid, number)
        with pytest.raises(EngineFailure, match=number.name):
            child.run({"x": rows(1)})


def test_a_process_that_does_not_answer_is_given_up(doubler):
    with Child(doubler, "onnxruntime", ChildSettings(run_limit_s=0.3)) as child:
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(EngineFailure, match=r"within 0\.3 s"):
            child.run({"x": rows(1)})


def test_no_process_is_left_behind(doubler):
    with Child(doubler, "onnxruntime") as child:
        pid = child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x00" * 100)
    with pytest.raises(EngineFailure), Child(tmp_path / "m.onnx", "onnxruntime"):
        pass


def test_an_unknown_engine():
    with pytest.raises(UsageError, match="onnxruntime"):
        engines.session_type("abacus")
    assert issubclass(MissingToolError, UsageError)


def test_one_that_dies_between_rounds_fails_alone(doubler):
    with Child(doubler, "onnxruntime") as one, Child(doubler, "onnxruntime") as other:
        victim = other.pid

        def kill_in_the_middle(share):
            if 0.4 < share < 0.6:
                os.kill(victim, signal.SIGKILL)

        timed = measuring.measure(
            {"one": one, "other": other}, {"x": rows(1)}, batch=1, settings=QUICK, progress=kill_in_the_middle
        )
    assert isinstance(timed["other"], EngineFailure)
    assert timed["one"].p50_ms > 0
    assert timed["one"].p50_ms <= timed["one"].p99_ms


@pytest.mark.parametrize("batch", [1, 3, 4, 32])
def test_evaluation_sees_every_row_once(doubler, batch):
    with Child(doubler, "onnxruntime") as child:
        assert measuring.evaluate(child, dataset(10), metrics.get("mse"), batch=batch) == 0.0
        assert measuring.evaluation_batch(child, dataset(10)) == 10
        gathered = [out[0] for out, _ in measuring.outputs_of(child, dataset(10), batch=batch)]
        assert np.array_equal(np.concatenate(gathered), rows(10) * 2)


def test_a_model_that_says_free_but_is_not_runs_one_by_one(tmp_path):
    path = save(
        tmp_path / "stuck.onnx",
        [
            helper.make_node(
                "Constant", [], ["shape"], value=helper.make_tensor("s", TensorProto.INT64, [2], [1, 3])
            ),
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    with Child(path, "onnxruntime") as child:
        assert measuring.evaluation_batch(child, dataset(10)) == 1


def test_agreement_with_recorded_outputs(doubler, tmp_path):
    with Child(doubler, "onnxruntime") as child:
        reference = measuring.record(child, dataset(10), tmp_path, batch=4)
        agreement = metrics.get("agreement")
        assert measuring.evaluate(child, dataset(10), agreement, batch=4, reference=reference) == 1.0


def saturating(folder):
    """A convolution whose pairs of products do not fit 16 bits: 64 inputs of 255 / 255 times weights of 127 / 127."""
    x, w = (TensorProto.FLOAT, ["n", 64, 1, 1]), np.full((8, 64, 1, 1), 127, np.int8)
    constants = {
        "w": w,
        "scale": np.array(1 / 255, np.float32),
        "zero": np.array(0, np.uint8),
        "wscale": np.array(1 / 127, np.float32),
        "wzero": np.array(0, np.int8),
        "yscale": np.array(64 / 255, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "wscale", "wzero"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "yscale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "yscale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 1, 1])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "saturating.onnx")
    return folder / "saturating.onnx"


def test_reference_arithmetic_does_not_saturate(tmp_path):
    feeds = {"x": np.ones((2, 64, 1, 1), np.float32)}
    path = saturating(tmp_path)
    with Child(path, "onnxruntime", reference=True) as child:
        assert child.run(feeds)["y"] == pytest.approx(64)
    here = targets.host()
    if measuring.faithful(targets.get("x86-vnni").toolchains[0], "int8", here) or here.arch != "x86_64":
        return  # kernels of this processor do not saturate either
    with Child(path, "onnxruntime") as child:
        assert child.run(feeds)["y"].max() < 63


@pytest.mark.parametrize(
    ("target", "machine", "expected"),
    [
        ("x86-avx2", "x86-avx2", True),
        ("x86-avx2", "x86-vnni", True),
        ("x86-vnni", "x86-avx2", False),
        ("raspberry-pi-4", "x86-vnni", False),
        ("raspberry-pi-4", "arm64", True),
        ("x86-avx2", "arm64", False),
        ("raspberry-pi-4", "null", False),
        ("null", "x86-avx2", True),
    ],
)
def test_kernels_are_faithful_where_types_are_equal_and_weights_fit(target, machine, expected):
    toolchain = targets.get(target).toolchains[0]
    assert measuring.faithful(toolchain, "int8", targets.get(machine)) == expected
    assert measuring.faithful(toolchain, "fp16", targets.get(machine))


dtypes = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_])


@given(
    st.dictionaries(
        st.text(max_size=5),
        dtypes.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0))),
        max_size=3,
    )
)
@settings(max_examples=60, deadline=None)
def test_messages_come_out_as_they_went_in(arrays):
    source, sink = os.pipe()
    try:
        frames.send(sink, frames.Frame({"op": "run"}, arrays))
        got = frames.receive(source, limit_s=5)
    finally:
        os.close(source)
        os.close(sink)
    assert got.fields == {"op": "run"}
    assert list(got.arrays) == list(arrays)
    for name, array in arrays.items():
        assert got.arrays[name].dtype == array.dtype
        assert np.array_equal(got.arrays[name], array, equal_nan=array.dtype.kind == "f")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_nonsense_on_the_pipe_is_refused(noise):
    source, sink = os.pipe()
    os.write(sink, noise)
    os.close(sink)
    try:
        with pytest.raises(frames.PipeError):
            frames.receive(source, limit_s=5)
    finally:
        os.close(source)
