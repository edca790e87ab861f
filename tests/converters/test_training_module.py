"""The ONNX graph as a torch module: the same answers, gradients for every weight, and an exact way back."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts.errors import InputError
from farrier_converters import model
from farrier_converters.graph import run
from farrier_converters.model import from_proto

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.training.module import OnnxModule  # noqa: E402

TOLERANCE = 1e-4
MOST = 1000  # cases of the backend suite that the operator table has to answer
# What torch has no kernel for, what only training mode shows, and what the standard leaves to chance.
BEYOND = ("uint16", "uint32", "uint64", "training", "_empty_set", "same_values", "l2normalization_axis_0")


def tensors(feeds):
    return {name: torch.from_numpy(np.array(value)) for name, value in feeds.items()}


def answers(module, feeds):
    with torch.no_grad():
        found = module.eval()(**tensors(feeds))
    return [t.numpy() for t in (found if isinstance(found, tuple) else (found,))]


def largest_difference(source, feeds):
    module = OnnxModule(source, example=feeds)
    expected = run.once(source.proto, feeds)
    pairs = zip(answers(module, feeds), expected, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def test_operators_answer_as_the_standard_says():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic divides by zero on purpose
        cases = collect_testcases(None)
    answered, wrong = 0, []
    for case in cases:
        if any(part in case.name for part in BEYOND) or not case.data_sets:
            continue
        inputs, expected = case.data_sets[0]
        try:
            source = from_proto(case.model, case.name)
            feeds = {s.name: np.asarray(v) for s, v in zip(source.inputs, inputs, strict=True)}
            module = OnnxModule(source, example=feeds)
            found = answers(module, feeds)
        except InputError:
            continue  # one sentence: what cannot be trained is refused
        except TypeError:
            continue  # an input of a type that torch has not
        answered += 1
        if not run.same(
            [f.astype(e.dtype) for f, e in zip(found, expected, strict=True)], expected, tolerance=1e-3
        ):
            wrong.append(case.name)
    assert not wrong
    assert answered >= MOST


def test_a_resnet_answers_and_comes_back_byte_for_byte(resnet20):
    feeds = {"images": np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)}
    assert largest_difference(resnet20, feeds) < TOLERANCE
    back = OnnxModule(resnet20).write_back()
    assert back.proto.SerializeToString() == resnet20.proto.SerializeToString()


@pytest.mark.parametrize(
    "path",
    [
        "ultraface/models/onnx/version-RFB-320.onnx",
        "mlperf_tiny/benchmark/training/visual_wake_words/trained_models/vww_96_float.tflite",
        "tflite_micro/tensorflow/lite/micro/examples/mnist_lstm/trained_lstm.tflite",
    ],
)
def test_real_models_answer_and_come_back_byte_for_byte(shared_data, path):
    source = model.load(shared_data / path)
    assert largest_difference(source, run.sample(source)) < TOLERANCE
    back = OnnxModule(source).write_back()
    assert back.proto.SerializeToString() == source.proto.SerializeToString()


def test_branches_on_shapes_are_inlined_under_a_guard(shared_data):
    source = model.load(shared_data / "silero_vad/src/silero_vad/data/silero_vad_16k_op15.onnx")
    rng = np.random.default_rng(0)
    feeds = {
        "input": rng.standard_normal((3, 576)).astype(np.float32) * 0.1,
        "state": np.zeros((2, 3, 128), np.float32),
        "sr": np.array(16000, np.int64),
    }
    module = OnnxModule(source, example=feeds)
    assert module.guards
    expected = run.once(source.proto, feeds)
    assert all(np.abs(a - b).max() < TOLERANCE for a, b in zip(answers(module, feeds), expected, strict=True))
    probability, state = module.train()(**tensors(feeds))
    (probability.sum() + state.sum()).backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_branch_on_data_is_refused():
    def branch(name, op):
        node = helper.make_node(op, ["x"], [name])
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
        return helper.make_graph([node], name, [], [out])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            name="choice",
            then_branch=branch("a", "Relu"),
            else_branch=branch("b", "Neg"),
        ),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], [zero])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(InputError, match="'choice' depends on the data"):
        OnnxModule(from_proto(proto, "test"))


def test_training_changes_only_what_trains(resnet20):
    module = OnnxModule(resnet20).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((8, 3, 32, 32), generator=generator)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    module(images).square().mean().backward()
    optimizer.step()
    back = module.write_back()
    before = {t.name: numpy_helper.to_array(t) for t in resnet20.proto.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in back.proto.graph.initializer}
    assert list(before) == list(after)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed >= {"conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"}
    assert not any(name.endswith((".pads", ".starts")) for name in changed)
    feeds = {"images": images.numpy()}
    assert np.abs(answers(module, feeds)[0] - run.once(back.proto, feeds)[0]).max() < TOLERANCE


def test_any_iterable_of_batches_trains(make_model):
    from farrier_converters.training.fit import FitSettings, fit

    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    constants = {"w": np.zeros((4, 1), np.float32), "b": np.zeros(1, np.float32)}
    module = OnnxModule(make_model(nodes, {"x": ["N", 4]}, ["y"], constants=constants))
    x = torch.randn((64, 4), generator=torch.Generator().manual_seed(0))
    target = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 0.25
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, target), batch_size=16)
    history = fit(
        module, loader, FitSettings(epochs=20, learning_rate=0.05, optimizer="sgd", weight_decay=0.0)
    )
    assert history.losses[-1] < 0.01 * history.losses[0]
    assert np.allclose(module.parameters_by_name["w"].detach().numpy().ravel(), [1, -2, 0.5, 3], atol=0.05)


def test_a_shared_weight_is_one_parameter(make_model):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    source = make_model(nodes, {"x": ["N", 4]}, ["y"], constants={"w": weight})
    module = OnnxModule(source)
    assert list(module.parameters_by_name) == ["w"]
    assert len(list(module.parameters())) == 1


def test_checkpoints_keep_gradients_and_statistics(resnet20):
    images = torch.randn((4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    found = []
    for checkpoints in (0, 4):
        module = OnnxModule(resnet20, checkpoints=checkpoints).train()
        module(images).square().mean().backward()
        gradients = {name: p.grad for name, p in module.parameters_by_name.items()}
        found.append((gradients, dict(module.named_buffers())))
    (plain, plain_buffers), (cut, cut_buffers) = found
    assert plain.keys() == cut.keys()
    assert all(torch.allclose(plain[name], cut[name], rtol=1e-4, atol=1e-6) for name in plain)
    assert all(torch.equal(plain_buffers[name], cut_buffers[name]) for name in plain_buffers)


def test_constants_in_nodes_are_written_back(make_model):
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    source = make_model(nodes, {"x": ["N", 3]}, ["y"])
    module = OnnxModule(source)
    with torch.no_grad():
        module.parameters_by_name["w"].mul_(2)
    back = module.write_back()
    x = np.ones((1, 3), np.float32)
    assert np.array_equal(run.once(back.proto, {"x": x})[0], 2 * x)
    assert [n.op_type for n in back.proto.graph.node] == ["Constant", "MatMul"]
    assert isinstance(back.proto, onnx.ModelProto)
