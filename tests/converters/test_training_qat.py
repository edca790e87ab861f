"""Training through quantizers: one truth for training and integers, scales that learn, accuracy won at few bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Arithmetic
from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.int8 import Int8Options

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.passes.adaround import AdaRoundOptions  # noqa: E402
from farrier_converters.passes.qat import QatOptions, prepare, train  # noqa: E402
from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402
from farrier_converters.training.ops.quantized import fake_quantize  # noqa: E402

ASSETS = Path(__file__).resolve().parents[2] / "sdk" / "farrier" / "showcase" / "assets"
TARGET = Arithmetic("u8", 8)
LOW_BITS = Int8Options(weight_bits=2, activation_bits=2, wide_edges=True)
ROUNDING = Int8Options(weight_bits=3)


@pytest.fixture(scope="module")
def digits():
    """A digits network, and rows to train and to test on."""
    source = model.load(ASSETS / "digits.onnx")
    with np.load(ASSETS / "digits-eval.npz") as file:
        images, labels = file[source.inputs[0].name], file["labels"]
    half = len(images) // 2
    return source, (images[:half], labels[:half]), (images[half:], labels[half:])


def context(digits, *, labels=True, batch=32):
    source, (images, known), _ = digits
    name = source.inputs[0].name

    def calibration():
        return ({name: images[i : i + 32].astype(np.float32)} for i in range(0, 256, 32))

    rows = Rows({name: images.astype(np.float32)}, known if labels else None, batch=batch)
    return passes.Context(TARGET, calibration, training=rows)


def accuracy(found, digits):
    images, labels = digits[2]
    scores = run.once(found.proto, {found.inputs[0].name: images.astype(np.float32)})[0]
    return float((scores.argmax(1) == labels).mean())


def quantized(digits, apply, options):
    names = {name: getattr(options, name) for name in ("weight_bits", "activation_bits", "wide_edges")}
    return apply(digits[0], "clean", "fuse", ("int8", names), context=context(digits))


def test_a_fused_quantizer_computes_and_learns_as_the_two_nodes_do():
    from farrier_converters.training.ops import lower

    pair = [
        lower(onnx.helper.make_node(op, ["x", "s", "z"], ["y"], axis=1), 17)
        for op in ("QuantizeLinear", "DequantizeLinear")
    ]
    generator = torch.Generator().manual_seed(0)
    zero = torch.tensor([3, 0, -5], dtype=torch.int8)
    found = []
    for fused in (True, False):
        x = torch.randn((4, 3, 5), generator=generator.manual_seed(1)).mul_(3).requires_grad_()
        scale = torch.tensor([0.01, 0.02, 0.3]).requires_grad_()
        y = (
            fake_quantize(x, scale, zero, axis=1, bounds=None)
            if fused
            else pair[1](pair[0](x, scale, zero), scale, zero)
        )
        y.square().sum().backward()
        found.append((y, x.grad, scale.grad))
    assert torch.allclose(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1])
    assert torch.allclose(found[0][2], found[1][2] / (20 * 255) ** 0.5, rtol=1e-4)


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (4, 4)])
def test_the_trainable_graph_is_the_integer_graph(resnet20, cifar10, bits):
    images = cifar10[0][:32]
    feeds = {"images": images}
    options = Int8Options(weight_bits=bits[0], activation_bits=bits[1], wide_edges=True)
    quantization, factors = prepare(resnet20, options, passes.Context(TARGET, lambda: iter([feeds])))
    assert len(factors) == 19
    graph, learnable = quantization.trainable(factors)
    integers = run.once(quantization.integers().proto, feeds)[0]
    with torch.no_grad():
        trainable = OnnxModule(graph, trainable=learnable.biases, scales=True).eval()(
            torch.from_numpy(images)
        )
    spread = float(integers.max() - integers.min())
    assert np.abs(trainable.numpy() - integers).mean() < 0.05 * spread
    assert (trainable.numpy().argmax(1) == integers.argmax(1)).mean() > 0.85
    assert np.abs(trainable.numpy() - run.once(graph.proto, feeds)[0]).mean() < 0.05 * spread


def test_training_wins_back_what_few_bits_cost(digits, apply):
    before = accuracy(quantized(digits, apply, LOW_BITS), digits)
    options = QatOptions(LOW_BITS, fit={"epochs": 6, "learning_rate": 0.002})
    found = train(digits[0], options, context(digits))
    after, exact = accuracy(found.model, digits), accuracy(digits[0], digits)
    assert before < exact - 0.02, "too easy to show anything"
    assert after > before + 0.5 * (exact - before)
    moved = np.concatenate([np.abs(change).reshape(-1) for change in found.moved.values()])
    assert np.median(moved) > 0.001
    assert found.history.losses[-1] < found.history.losses[0]
    kinds = {node.op_type for node in found.model.proto.graph.node}
    assert "QuantizeLinear" in kinds
    assert "BatchNormalization" not in kinds


def test_it_learns_from_the_float_model_where_there_are_no_labels(digits, apply):
    options = QatOptions(LOW_BITS, fit={"epochs": 4, "learning_rate": 0.002})
    found = passes.get("qat").run(digits[0], options, context(digits, labels=False))
    assert accuracy(found, digits) > accuracy(quantized(digits, apply, LOW_BITS), digits)


def test_equal_seeds_give_equal_bytes(digits):
    options = QatOptions(LOW_BITS, fit={"epochs": 1})
    first, second = (train(digits[0], options, context(digits)).model for _ in range(2))
    assert first.proto.SerializeToString(deterministic=True) == second.proto.SerializeToString(
        deterministic=True
    )


def test_divergence_is_one_sentence(digits):
    with pytest.raises(InputError, match="lower the learning rate"):
        train(digits[0], QatOptions(fit={"epochs": 1, "learning_rate": 1e30, "warmup": 0.0}), context(digits))


def test_training_data_is_asked_for(digits):
    with pytest.raises(UsageError, match="training data"):
        train(digits[0], QatOptions(), passes.Context(TARGET, context(digits).calibration))


def test_a_network_from_tflite_trains(shared_data):
    path = "mlperf_tiny/benchmark/training/keyword_spotting/trained_models/kws_ref_model_float32.tflite"
    source = model.load(shared_data / path)
    name = source.inputs[0].name
    rows = np.random.default_rng(0).standard_normal((32, 49, 10, 1)).astype(np.float32)
    batches = Rows({name: rows}, batch=16)
    given = passes.Context(TARGET, lambda: iter([{name: rows}]), training=batches)
    found = train(source, QatOptions(fit={"epochs": 1}), given)
    assert any(node.op_type == "QuantizeLinear" for node in found.model.proto.graph.node)
    exact, integer = (run.once(m.proto, {name: rows})[0] for m in (source, found.model))
    assert np.isfinite(integer).all()
    assert np.abs(exact - integer).mean() < 0.1


def test_learned_rounding_beats_the_nearest(digits, apply):
    given = context(digits)
    nearest = quantized(digits, apply, ROUNDING)
    learned = passes.get("adaround").run(digits[0], AdaRoundOptions(ROUNDING, {"iterations": 200}), given)
    images = digits[2][0].astype(np.float32)
    exact, near, fitted = (
        run.once(m.proto, {m.inputs[0].name: images})[0] for m in (digits[0], nearest, learned)
    )
    assert np.square(fitted - exact).mean() < 0.8 * np.square(near - exact).mean()
