"""One bundle, once: answers, checks, and models that take their process with them."""

from __future__ import annotations

import numpy as np
import pytest

from farrier_agent.infer import check, infer
from farrier_contracts.errors import FarrierError
from farrier_contracts.tensors import TensorSpec


def bundle_file(bundle):
    return max(bundle.store.parent.glob("*.farrier"))


def test_it_writes_the_outputs(conv_bundle, conv_net, inputs_of, tmp_path):
    inputs = inputs_of(4, 2)
    np.savez(tmp_path / "in.npz", **inputs)
    summary = infer(bundle_file(conv_bundle), tmp_path / "in.npz", tmp_path / "out.npz")
    want = conv_net.direct(inputs)
    assert [(o["name"], o["datatype"], o["shape"]) for o in summary["outputs"]] == [
        ("scores", "FP32", [2, 5]),
        ("best", "INT64", [2, 1]),
    ]
    assert summary["outputs"][1]["data"] == want["best"].tolist()
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_allclose(file["scores"], want["scores"], rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["in.npz", "out.npz"]


def test_a_check_says_what_was_checked(conv_bundle):
    found = check(bundle_file(conv_bundle))
    assert (found["name"], found["golden"], found["digest"]) == ("model", 8, conv_bundle.digest)


def test_errors_are_one_sentence_with_their_exit_code(conv_bundle, tmp_path):
    np.savez(tmp_path / "in.npz", y=np.zeros(3))
    for attempt, sentence in (
        (lambda: infer(bundle_file(conv_bundle), tmp_path / "in.npz"), "'x' is missing"),
        (lambda: infer(bundle_file(conv_bundle), tmp_path / "none.npz"), "does not exist"),
        (lambda: check(tmp_path / "none.farrier"), "does not exist"),
    ):
        with pytest.raises(FarrierError, match=sentence) as error:
            attempt()
        assert error.value.exit_code == 2
        assert "\n" not in str(error.value)


def test_a_model_that_aborts_its_process_is_a_sentence(make_bundle, shared_data):
    """The Edge TPU's models make the interpreter abort or refuse, depending on its version: never a crash here."""
    [model] = (shared_data / "coral").rglob("mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    specs = [TensorSpec("x", "UINT8", (1, 128, 128, 3))], [TensorSpec("y", "UINT8", (1, 1001))]
    make_bundle(model.read_bytes(), *specs, engine="litert")
    with pytest.raises(FarrierError) as error:
        check(make_bundle.folder / "1.farrier")
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
