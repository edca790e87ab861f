"""The runtime as a library: right answers, refused inputs, refused bundles."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from farrier_agent.batching.batcher import RejectedError
from farrier_agent.runtime import Runtime, RuntimeSettings
from farrier_contracts.bundle import Compatibility
from farrier_contracts.errors import BundleError, FarrierError, InputError
from farrier_contracts.tensors import TensorSpec


def assert_same(got, want):
    assert set(got) == set(want)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5)


def test_it_gives_the_models_own_outputs(conv_bundle, conv_net, inputs_of):
    with Runtime(conv_bundle) as runtime:
        assert runtime.golden_cases == 8
        for rows in (1, 3, 40):
            inputs = inputs_of(rows, rows)
            assert_same(runtime.infer(inputs), conv_net.direct(inputs))
        assert runtime.stats.read().executions == 3
        assert runtime.stats.read().items == 44


def test_it_opens_a_bundle_file_and_leaves_nothing_behind(conv_bundle, inputs_of, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Runtime(conv_bundle.store.parent / "1.farrier") as runtime:
        assert set(runtime.infer(inputs_of(1))) == {"scores", "best"}
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros((1, 1, 8, 8))}, "float64"),
        ({"x": np.zeros((1, 1, 8, 9), np.float32)}, r"\[1, 1, 8, 9\]"),
        ({"x": np.zeros((8, 8), np.float32)}, r"\[8, 8\]"),
        ({"x": np.zeros((1, 1, 8, 8), np.float32), "y": np.zeros(1)}, "'y' is unknown"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_sentence(conv_bundle, inputs, sentence):
    with Runtime(conv_bundle) as runtime, pytest.raises(InputError, match=sentence) as error:
        runtime.infer(inputs)
    assert "\n" not in str(error.value)


def test_many_threads_get_their_own_answers(conv_bundle, conv_net, inputs_of):
    wrong = []

    def work(seed: int) -> None:
        for step in range(20):
            inputs = inputs_of(seed * 100 + step, 1 + (seed + step) % 3)
            got, want = runtime.infer(inputs), conv_net_direct(inputs)
            if any(not np.allclose(got[name], want[name], atol=1e-5) for name in want):
                wrong.append((seed, step))

    with Runtime(conv_bundle) as runtime, Runtime(conv_bundle) as reference:
        conv_net_direct = reference.infer
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert runtime.stats.read().items == sum(1 + (s + t) % 3 for s in range(8) for t in range(20))


def test_a_view_with_strides_is_accepted(conv_bundle, conv_net, inputs_of):
    wide = np.random.default_rng(0).normal(size=(2, 1, 8, 16)).astype(np.float32)
    view = wide[:, :, :, ::2]
    with Runtime(conv_bundle) as runtime:
        assert_same(runtime.infer({"x": view}), conv_net.direct({"x": np.ascontiguousarray(view)}))


def test_a_failing_golden_check_refuses_the_bundle(make_bundle, conv_net, inputs_of):
    x = inputs_of(3, 2)["x"]
    wrong = conv_net.direct({"x": x})
    wrong["scores"] = wrong["scores"] + np.array([[0.0], [0.5]], np.float32)
    golden = {"in.x": x, **{f"out.{name}": array for name, array in wrong.items()}}
    bundle = make_bundle(conv_net.model, conv_net.inputs, conv_net.outputs, max_batch=4, golden=golden)
    with pytest.raises(BundleError, match="'scores' of case 1 is"):
        Runtime(bundle)


@pytest.mark.parametrize(
    ("need", "sentence"),
    [
        (Compatibility(arch=("riscv64",)), "is for riscv64"),
        (Compatibility(memory_bytes=1 << 50), "MiB of memory"),
        (Compatibility(engines={"onnxruntime": "99.1"}), "onnxruntime 99.1 or newer"),
    ],
)
def test_a_bundle_for_another_device_is_refused(make_bundle, conv_net, need, sentence):
    bundle = make_bundle(conv_net.model, conv_net.inputs, conv_net.outputs, compatibility=need)
    with pytest.raises(BundleError, match=sentence):
        Runtime(bundle)


def test_a_broken_model_is_refused_in_one_sentence(make_bundle, conv_net):
    for model in (b"", b"nonsense", conv_net.model[:-200]):
        with pytest.raises(BundleError, match="cannot load the model") as error:
            Runtime(make_bundle(model, conv_net.inputs, conv_net.outputs))
        assert "\n" not in str(error.value)


def test_a_manifest_that_names_other_tensors_is_refused(make_bundle, conv_net):
    with pytest.raises(BundleError, match="disagree about"):
        Runtime(make_bundle(conv_net.model, [TensorSpec("y", "FP32", (-1, 1, 8, 8))], conv_net.outputs))


def test_an_engine_error_is_one_sentence(make_bundle, conv_net):
    loose = [TensorSpec("x", "FP32", (-1, -1, 8, 8))]  # the manifest allows what the model does not
    bundle = make_bundle(conv_net.model, loose, conv_net.outputs, warmup=None, golden=None)
    with Runtime(bundle) as runtime:
        with pytest.raises(FarrierError, match="failed on this request") as error:
            runtime.infer({"x": np.zeros((1, 2, 8, 8), np.float32)})
        assert "\n" not in str(error.value)
        assert runtime.infer({"x": np.zeros((1, 1, 8, 8), np.float32)})["scores"].shape == (1, 5)


def test_the_package_offers_the_runtime_but_imports_nothing_heavy():
    code = (
        "import sys, farrier_agent, farrier_agent.stats, farrier_agent.infer\n"
        "heavy = {'numpy', 'onnxruntime', 'ai_edge_litert', 'httptools', 'asyncio', 'onnx', 'click'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert farrier_agent.Runtime.__module__ == 'farrier_agent.runtime'\n"
        "assert not {'onnxruntime', 'ai_edge_litert', 'onnx', 'click', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_submit_after_close_is_rejected(conv_bundle, inputs_of):
    runtime = Runtime(conv_bundle, settings=RuntimeSettings(queue_limit=1))
    runtime.close()
    with pytest.raises(RejectedError):
        runtime.submit(inputs_of(1), print)
