"""A training that is killed goes on where it was, and ends as one that was not, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

# Dropout and a shuffling loader draw from the generator whose state has to come back.
TRAINING = """
import os, signal, sys
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.model import from_proto
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.hooks import KeepZeros
from farrier_converters.training.module import OnnxModule
from farrier_converters.training.objective import Hook, Objective

rng = np.random.default_rng(0)
nodes = [
    helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1, 1]),
    helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
    helper.make_node("Relu", ["n"], ["r"]),
    helper.make_node("Dropout", ["r", "p"], ["d"]),
    helper.make_node("Flatten", ["d"], ["f"]),
    helper.make_node("Gemm", ["f", "w2", "b2"], ["y"]),
]
w1 = rng.standard_normal((6, 1, 3)).astype(np.float32)
w1[::2] = 0
constants = dict(
    w1=w1, g=np.ones(6, np.float32), b=np.zeros(6, np.float32), m=np.zeros(6, np.float32), v=np.ones(6, np.float32),
    p=np.float32(0.3), w2=(rng.standard_normal((48, 3)) * 0.2).astype(np.float32), b2=np.zeros(3, np.float32),
)
graph = helper.make_graph(
    nodes, "net",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    [numpy_helper.from_array(value, name) for name, value in constants.items()],
)
model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net")

x = torch.from_numpy(rng.standard_normal((96, 1, 8)).astype(np.float32))
y = x[:, 0, :3].argmax(1)


class Matching(Objective):
    keep = ("r",)

    def __init__(self):
        self.projection = torch.nn.Parameter(torch.zeros(6, 1))

    def __call__(self, values, feeds, labels):
        guess = (values["r"].transpose(1, 2) @ self.projection).transpose(1, 2)
        return torch.nn.functional.cross_entropy(values["y"], labels) + (guess - feeds["x"]).square().mean()

    def parameters(self):
        return [self.projection]


class Die(Hook):
    def after(self, module, moment):
        if moment.step == DEATH:
            os.kill(os.getpid(), signal.SIGKILL)


DEATH, work, out = int(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16, shuffle=True)
held = [(x[:48].numpy(), y[:48].numpy())]
module, objective, told = OnnxModule(model), Matching(), []
history = fit(
    module, loader,
    FitSettings(epochs=4, learning_rate=0.01, average=0.9, patience=3, accumulate=2),
    objective=objective, hooks=[KeepZeros(), Die()], validation=held,
    work=None if work is None else Path(work), progress=lambda stage, share: told.append(share),
)
state = {name: value.numpy() for name, value in module.state_dict().items()}
np.savez(out, projection=objective.projection.detach().numpy(), losses=history.losses, scores=history.scores,
         validation=history.validation_losses, best=history.best, first=min(told), **state)
"""


def train(tmp_path: Path, name: str, *, work: Path | None, death: int) -> subprocess.CompletedProcess:
    out = tmp_path / f"{name}.npz"
    arguments = [str(death), str(work or ""), str(out)]
    return subprocess.run(
        [sys.executable, "-c", TRAINING, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_killed_training_ends_bit_for_bit_like_another(tmp_path):
    work = tmp_path / "work"
    whole = train(tmp_path, "whole", work=None, death=-1)
    assert whole.returncode == 0, whole.stderr
    # 96 rows are 6 batches, 3 steps: the first kill is in the second epoch, the other one in the fourth.
    for death in (4, 10):
        killed = train(tmp_path, "killed", work=work, death=death)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed.npz").exists()
    resumed = train(tmp_path, "resumed", work=work, death=-1)
    assert resumed.returncode == 0, resumed.stderr
    with np.load(tmp_path / "whole.npz") as expected, np.load(tmp_path / "resumed.npz") as found:
        assert found["first"] >= 0.75
        assert expected["first"] == 0
        assert len(expected["losses"]) == 4
        for name in expected.files:
            if name != "first":
                assert np.array_equal(expected[name], found[name]), name
    assert len(list(work.iterdir())) == 1


@pytest.fixture
def parts(make_model):
    from onnx import helper

    from farrier_converters.training.data import Rows
    from farrier_converters.training.module import OnnxModule

    rng = np.random.default_rng(0)
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", 4]},
        ["y"],
        constants={"w": rng.standard_normal((4, 2)).astype(np.float32)},
    )
    x = rng.standard_normal((32, 4)).astype(np.float32)
    return (
        model,
        lambda shift=0: Rows({"x": x + np.float32(shift)}, (x[:, 0] > 0).astype(np.int64), batch=8),
        OnnxModule,
    )


def test_another_training_finds_nothing_in_the_folder(tmp_path, parts):
    from farrier_converters.training.fit import FitSettings, fit

    model, data, module = parts
    settings = FitSettings(epochs=2)
    first = fit(module(model), data(), settings, work=tmp_path)
    same = fit(module(model), data(), settings, work=tmp_path)
    assert same.seconds == first.seconds  # read, not trained again
    fit(module(model), data(), FitSettings(epochs=2, seed=1), work=tmp_path)
    fit(module(model), data(1), settings, work=tmp_path)
    fit(module(model), data(), settings, work=tmp_path, key="another objective")
    assert len(list(tmp_path.glob("*.pt"))) == 4


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_file_is_no_reason_to_fail(tmp_path, parts, damage):
    from farrier_converters.training.fit import FitSettings, fit

    model, data, module = parts
    wanted = fit(module(model), data(), FitSettings(epochs=2), work=tmp_path)
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert fit(module(model), data(), FitSettings(epochs=2), work=tmp_path).losses == wanted.losses


def test_a_file_with_code_in_it_is_not_run(tmp_path, parts):
    from farrier_converters.training.fit import FitSettings, fit

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-here"), "w"))

    model, data, module = parts
    fit(module(model), data(), FitSettings(epochs=1), work=tmp_path)
    (file,) = tmp_path.glob("*.pt")
    torch.save({"epoch": Evil()}, file)
    assert fit(module(model), data(), FitSettings(epochs=1), work=tmp_path).losses
    assert not (tmp_path / "was-here").exists()
