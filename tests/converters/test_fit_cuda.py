"""Training on a real GPU: the losses of the processor, no step that waits, every precision, and a way back."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")
if not torch.cuda.is_available():
    pytest.skip("this machine has no CUDA device", allow_module_level=True)

from farrier_converters.graph import run  # noqa: E402
from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.fit import FitSettings, fit  # noqa: E402
from farrier_converters.training.hooks import KeepZeros  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402
from farrier_converters.training.objective import Hook  # noqa: E402

node = helper.make_node


class NoWaiting(Hook):
    """Makes PyTorch raise an error wherever a step waits for the device, once its caches are filled."""

    def before(self, module, moment):
        torch.cuda.set_sync_debug_mode("error" if moment.step >= 2 else "default")

    def after(self, module, moment):
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(scope="module")
def convolutional(make_model):
    rng = np.random.default_rng(0)

    def weight(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"]),
        node("Clip", ["n", "low", "high"], ["c"]),
        node("Resize", ["c", "", "scales"], ["r"], mode="linear"),
        node("Conv", ["r", "w2"], ["d"], group=8, pads=[1, 1, 1, 1]),
        node("Relu", ["d"], ["e"]),
        node("GlobalAveragePool", ["e"], ["q"]),
        node("Flatten", ["q"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    constants = {
        **{
            "w1": weight(8, 3, 3, 3),
            "w2": weight(8, 1, 3, 3),
            "w3": weight(8, 3),
            "b3": np.zeros(3, np.float32),
        },
        **{"g": np.ones(8, np.float32), "b": np.zeros(8, np.float32)},
        **{"m": np.zeros(8, np.float32), "v": np.ones(8, np.float32)},
        **{"low": np.float32(0), "high": np.float32(6), "scales": np.array([1, 1, 2, 2], np.float32)},
    }
    return make_model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], constants=constants), (3, 8, 8)


@pytest.fixture(scope="module")
def recurrent(make_model):
    rng = np.random.default_rng(1)
    nodes = [
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node("LSTM", ["steps", "w", "r", "b"], ["", "last", ""], hidden_size=8),
        node("Squeeze", ["last", "front"], ["h"]),
        node("LayerNormalization", ["h", "g", "b0"], ["n"]),
        node("MatMul", ["n", "wo"], ["y"]),
    ]
    constants = {
        name: (rng.standard_normal(shape) * 0.3).astype(np.float32)
        for name, shape in {"w": (1, 32, 4), "r": (1, 32, 8), "b": (1, 64), "wo": (8, 3)}.items()
    }
    constants |= {"g": np.ones(8, np.float32), "b0": np.zeros(8, np.float32), "front": np.array([0])}
    return make_model(nodes, {"x": ["N", 6, 4]}, ["y"], constants=constants), (6, 4)


def rows(shape):
    rng = np.random.default_rng(2)
    return Rows({"x": rng.standard_normal((96, *shape)).astype(np.float32)}, rng.integers(0, 3, 96), batch=16)


@pytest.mark.parametrize("kind", ["convolutional", "recurrent"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_trains_as_on_the_processor_without_waiting(request, kind, optimizer, precision):
    model, shape = request.getfixturevalue(kind)
    common = {"epochs": 2, "optimizer": optimizer, "learning_rate": 0.01, "clip": 1.0, "average": 0.9}
    wanted = fit(OnnxModule(model), rows(shape), FitSettings(**common), hooks=[KeepZeros()])
    module = OnnxModule(model)
    settings = FitSettings(**common, device="cuda", precision=precision)
    found = fit(module, rows(shape), settings, hooks=[KeepZeros(), NoWaiting()], validation=rows(shape))
    assert module.device.type == "cuda"
    assert np.allclose(found.losses, wanted.losses, rtol=1e-2 if precision == "fp32" else 0.1)
    back = module.write_back()
    x = next(rows(shape).in_order())[0]
    with torch.no_grad():
        there = module(torch.from_numpy(x["x"]).cuda()).cpu().numpy()
    assert np.allclose(run.once(back.proto, x)[0], there, atol=2e-2)
    old = {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}
    new = {t.name: numpy_helper.to_array(t) for t in back.proto.graph.initializer}
    assert any(not np.array_equal(old[name], new[name]) for name in old)


def test_a_training_goes_on_from_its_folder(convolutional, tmp_path):
    model, shape = convolutional
    settings = FitSettings(epochs=3, learning_rate=0.01, device="cuda", precision="fp16", average=0.9)

    class Stop(Hook):
        def after(self, module, moment):
            if moment.epoch == 2:
                raise KeyboardInterrupt

    class Go(Stop):
        def after(self, module, moment):
            del module, moment

    Go.__qualname__ = Stop.__qualname__  # the same training
    with pytest.raises(KeyboardInterrupt):
        fit(OnnxModule(model), rows(shape), settings, hooks=[Stop()], work=tmp_path)
    told = []
    found = fit(
        OnnxModule(model),
        rows(shape),
        settings,
        hooks=[Go()],
        work=tmp_path,
        progress=lambda _stage, share: told.append(share),
    )
    assert len(found.losses) == 3
    assert len(list(tmp_path.glob("*.pt"))) == 1
