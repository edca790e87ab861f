"""Training through quantizers works for what did not come from PyTorch, and in little memory."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
from onnx import numpy_helper

from farrier_contracts.targets import Arithmetic
from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.int8 import Int8Options

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.passes.qat import QatOptions, prepare, train  # noqa: E402
from farrier_converters.training.data import Rows  # noqa: E402
from farrier_converters.training.module import OnnxModule  # noqa: E402

TARGET = Arithmetic("u8", 8)
LOW_BITS = Int8Options(weight_bits=4, activation_bits=4, wide_edges=True)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures as the fixture has them
TRAINED = "mlperf_tiny/benchmark/training/image_classification/trained_models/pretrainedResnet"
KERAS = importlib.util.find_spec("tensorflow") is not None or bool(
    os.environ.get("FARRIER_TENSORFLOW_PYTHON")
)


@pytest.fixture(scope="module")
def raw(cifar10):
    """Pictures as Keras models read them, [N, 32, 32, 3] in 0 to 255, and their labels: to train, to test."""
    images, labels = cifar10
    pixels = (images.transpose(0, 2, 3, 1) * np.float32(STD) + np.float32(MEAN)) * 255
    half = len(pixels) // 2
    return (pixels[:half], labels[:half]), (pixels[half:], labels[half:])


def test_a_folded_network_trains_at_the_size_that_networks_start_from(shared_data):
    source = model.load(shared_data / f"{TRAINED}.tflite")
    feeds = run.sample(source)
    quantization, factors = prepare(source, Int8Options(), passes.Context(TARGET, lambda: iter([feeds])))
    graph, learnable = quantization.trainable(factors)
    weights = {t.name: numpy_helper.to_array(t) for t in graph.proto.graph.initializer}
    assert len(learnable.norms) == len(factors) > 5
    for norm in learnable.norms:
        weight = weights[norm.weight].reshape(len(norm.factor), -1)
        size = np.square(weight).mean(1) * weight.shape[1] / 2
        assert np.allclose(size[norm.factor != 1], 1, rtol=1e-4)
        assert (norm.factor != 1).mean() > 0.9
    module = OnnxModule(graph, trainable=learnable.biases, scales=True).eval()
    with torch.no_grad():
        found = module(**{name: torch.from_numpy(value) for name, value in feeds.items()}).numpy()
    assert np.abs(found - run.once(quantization.integers().proto, feeds)[0]).max() < 0.05


@pytest.mark.parametrize(
    "suffix",
    ["tflite", pytest.param("h5", marks=pytest.mark.skipif(not KERAS, reason="TensorFlow is not installed"))],
)
def test_a_network_from_keras_wins_back_what_four_bits_cost(shared_data, apply, raw, suffix):
    source = model.load(shared_data / f"{TRAINED}.{suffix}")
    name = source.inputs[0].name
    (pixels, labels), (tested, known) = raw
    given = passes.Context(
        TARGET,
        lambda: ({name: pixels[i : i + 32]} for i in range(0, 128, 32)),
        training=Rows({name: pixels}, labels, batch=32),
    )

    def accuracy(found):
        return float((run.once(found.proto, {name: tested})[0].argmax(1) == known).mean())

    options = {"weight_bits": 4, "activation_bits": 4, "wide_edges": True}
    before = accuracy(apply(source, "clean", "fuse", ("int8", options), context=given))
    found = train(source, QatOptions(LOW_BITS, fit={"epochs": 2}), given)
    after, exact = accuracy(found.model), accuracy(source)
    assert before < exact - 0.02, "too easy to show anything"
    assert after > before + 0.3 * (exact - before)


def test_checkpoints_train_alike_in_a_fraction_of_the_memory(resnet20, cifar10):
    images, labels = cifar10[0][:16], cifar10[1][:16]
    given = passes.Context(
        TARGET, lambda: iter([{"images": images}]), training=Rows({"images": images}, labels, batch=8)
    )
    quantization, factors = prepare(resnet20, LOW_BITS, given)
    graph, learnable = quantization.trainable(factors)
    plain, cut = (
        OnnxModule(graph, trainable=learnable.biases, scales=True, checkpoints=c).train() for c in (0, 4)
    )
    assert _held(cut, images) < 0.25 * _held(plain, images)
    options = [QatOptions(LOW_BITS, fit={"epochs": 1}, checkpoints=c) for c in (0, 4)]
    first, second = (train(resnet20, o, given) for o in options)
    assert first.history.losses == pytest.approx(second.history.losses, rel=1e-4)


def _held(module, images):
    """Return the bytes that a forward pass leaves for the backward pass."""
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as seen:
        outputs = module(torch.from_numpy(images))
    assert outputs.requires_grad
    return sum(event.self_cpu_memory_usage for event in seen.key_averages())
