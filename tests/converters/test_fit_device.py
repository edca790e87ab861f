"""Training on an accelerator, on a stand-in for one: nothing meets across devices, and no step waits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from farrier_contracts.errors import UsageError
from farrier_converters.graph import run

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from second_device import AWAY, Away  # noqa: E402

from farrier_converters.training.fit import FitSettings, fit  # noqa: E402
from farrier_converters.training.fit.feed import ahead  # noqa: E402
from farrier_converters.training.hooks import KeepZeros  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402

node = helper.make_node


def weights(rng, *shape):
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)


def convolutional(make_model):
    """Bounds of clips, pads, scales, slices and axes are constants that must not be read from the device."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"]),
        node("Clip", ["n", "low", "high"], ["c"]),
        node("Pad", ["c", "pads", "filler"], ["p"]),
        node("Resize", ["p", "", "scales"], ["r"], mode="linear"),
        node("Slice", ["r", "starts", "ends", "axes", "steps"], ["s"]),
        node("Slice", ["s", "back", "front", "axes", "reversed"], ["f"]),
        node("Split", ["f", "halves"], ["h1", "h2"], axis=1),
        node("Concat", ["h2", "h1"], ["k"], axis=1),
        node("GlobalAveragePool", ["k"], ["q"]),
        node("Flatten", ["q"], ["d"]),
        node("Dropout", ["d", "ratio"], ["e"]),
        node("Gemm", ["e", "w2", "c2"], ["y"]),
    ]
    constants = {
        "w1": weights(rng, 4, 2, 3, 3),
        **{"g": np.ones(4, np.float32), "b": np.zeros(4, np.float32)},
        **{"m": np.zeros(4, np.float32), "v": np.ones(4, np.float32)},
        **{"low": np.float32(0), "high": np.float32(6), "filler": np.float32(0.5)},
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "scales": np.array([1, 1, 2, 2], np.float32),
        **{"starts": np.array([1]), "ends": np.array([9]), "axes": np.array([2]), "steps": np.array([2])},
        **{"back": np.array([-1]), "front": np.array([-100]), "reversed": np.array([-1])},
        "halves": np.array([1, 3]),
        "ratio": np.float32(0.1),
        **{"w2": weights(rng, 4, 3), "c2": np.zeros(3, np.float32)},
    }
    return make_model(nodes, {"x": ["N", 2, 6, 6]}, ["y"], constants=constants)


def attention(make_model):
    """Shapes, positions, masks and the root of the width are computed from the input's shape."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        node("Gather", ["table", "ids"], ["words"]),
        node("Shape", ["ids"], ["shape"]),
        node("Gather", ["shape", "one"], ["length"]),
        node("Range", ["zero", "length", "one"], ["places"]),
        node("Gather", ["positions", "places"], ["where"]),
        node("Add", ["words", "where"], ["h"]),
        node("LayerNormalization", ["h", "ln", "lb"], ["t"]),
        node("MatMul", ["t", "wq"], ["q"]),
        node("Transpose", ["t"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Shape", ["t"], ["full"], start=2),
        node("Cast", ["full"], ["width"], to=TensorProto.FLOAT),
        node("Mul", ["width", "fraction"], ["part"]),
        node("Sqrt", ["part"], ["root"]),
        node("Div", ["scores", "root"], ["scaled"]),
        node("Unsqueeze", ["places", "one_axis"], ["column"]),
        node("GreaterOrEqual", ["column", "places"], ["seen"]),
        node("Where", ["seen", "scaled", "never"], ["masked"]),
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "t"], ["mixed"]),
        node("ReduceMean", ["mixed"], ["mean"], axes=[1], keepdims=0),
        node("Where", ["table_mask", "mean", "never_zero"], ["kept"]),
        node("MatMul", ["kept", "wo"], ["y"]),
    ]
    constants = {
        "table": weights(rng, 11, 8),
        "positions": weights(rng, 16, 8),
        **{"zero": np.int64(0), "one": np.int64(1), "one_axis": np.array([1])},
        **{"ln": np.ones(8, np.float32), "lb": np.zeros(8, np.float32)},
        **{"wq": weights(rng, 8, 8), "wo": weights(rng, 8, 3)},
        **{"never": np.float32(-1e9), "never_zero": np.float32(0), "fraction": np.float32(0.5)},
        "table_mask": np.array([True] * 7 + [False]),
    }
    return make_model(nodes, {"x": ["N", 5]}, ["y"], constants=constants)


def recurrent(make_model):
    """The first state is made of zeros in a shape that follows from the input's."""
    rng = np.random.default_rng(2)
    nodes = [
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node("Shape", ["x"], ["batch"], start=0, end=1),
        node("Concat", ["one", "batch", "hidden"], ["size"], axis=0),
        node("ConstantOfShape", ["size"], ["state"]),
        node("LSTM", ["steps", "w", "r", "b", "", "state", "state"], ["", "last", ""], hidden_size=4),
        node("Squeeze", ["last", "front"], ["h"]),
        node("MatMul", ["h", "wo"], ["y"]),
    ]
    constants = {
        **{"one": np.array([1]), "hidden": np.array([4]), "front": np.array([0])},
        **{"w": weights(rng, 1, 16, 3), "r": weights(rng, 1, 16, 4), "b": weights(rng, 1, 32)},
        "wo": weights(rng, 4, 3),
    }
    return make_model(nodes, {"x": ["N", 6, 3]}, ["y"], constants=constants)


def quantized(make_model):
    """Zero points are integers beside data, one per tensor and one per channel."""
    rng = np.random.default_rng(3)
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=1),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=1),
        node("MatMul", ["xd", "wd"], ["y"]),
    ]
    constants = {
        **{"w": weights(rng, 5, 3), "s": np.float32(0.02), "z": np.uint8(128)},
        **{"ws": np.full(3, 0.01, np.float32), "wz": np.zeros(3, np.int8)},
    }
    return make_model(nodes, {"x": ["N", 5]}, ["y"], constants=constants)


def data(model):
    rng = np.random.default_rng(4)
    (spec,) = model.inputs
    batches = []
    for _ in range(4):
        x = (
            rng.integers(0, 11, (8, *spec.shape[1:]))
            if len(spec.shape) == 2
            else rng.standard_normal((8, *spec.shape[1:]))
        )
        batches.append((x.astype(np.float32), rng.integers(0, 3, 8)))
    return batches


@pytest.mark.parametrize("network", [convolutional, attention, recurrent, quantized])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_elsewhere_is_the_same_and_does_not_wait(make_model, monkeypatch, network, optimizer):
    model = network(make_model)
    settings = FitSettings(
        epochs=2, optimizer=optimizer, learning_rate=0.01, clip=1.0, average=0.9, frozen_norms=0.5
    )
    here = OnnxModule(model, scales=network is quantized)
    wanted = fit(here, data(model), settings, hooks=[KeepZeros()])

    monkeypatch.setattr("farrier_converters.training.fit.trainer.resolve", lambda _name: AWAY)
    with Away() as away:
        there = OnnxModule(model, scales=network is quantized)
        found = fit(there, data(model), settings, hooks=[KeepZeros()])
        waits = len(away.waits)
        back = there.write_back()
    assert np.allclose(found.losses, wanted.losses, rtol=1e-5)
    assert found.losses[-1] != found.losses[0]
    assert waits <= 2 * settings.epochs + 1  # for the loss and for the weights; the hook looks once
    feeds = {model.inputs[0].name: data(model)[0][0]}
    for a, b in zip(run.once(back.proto, feeds), run.once(here.write_back().proto, feeds), strict=True):
        assert np.allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", [convolutional, attention, recurrent, quantized])
def test_half_precision_is_near_with_every_kind_of_layer(make_model, network):
    found = []
    for precision in ("fp32", "bf16"):
        module = OnnxModule(network(make_model), scales=network is quantized)
        settings = FitSettings(epochs=2, precision=precision, optimizer="sgd", learning_rate=0.01)
        found.append(fit(module, data(module.model), settings).losses)
    assert np.allclose(*found, rtol=0.02)
    assert found[0] != found[1]


def test_the_stand_in_finds_two_devices():
    with Away() as away:
        x = torch.ones(3).to(AWAY)
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(3)
        assert float(x.sum()) == 3
        assert len(away.waits) == 1


def test_a_device_that_is_not_there_is_one_sentence(make_model):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    module = OnnxModule(quantized(make_model))
    with pytest.raises(UsageError, match="no CUDA device"):
        fit(module, data(module.model), FitSettings(device="cuda"))
    assert fit(module, data(module.model), FitSettings(device="auto", epochs=1)).losses


def test_batches_ahead_come_in_order_and_with_their_errors():
    assert list(ahead(iter(range(20)))) == list(range(20))

    def broken():
        yield 1
        raise ValueError("torn")

    batches = ahead(broken())
    assert next(batches) == 1
    with pytest.raises(ValueError, match="torn"):
        next(batches)


def test_batches_ahead_end_with_their_reader():
    made = []
    batches = ahead(made.append(i) or i for i in range(10**6))
    assert next(batches) == 0
    batches.close()
    assert len(made) < 100
