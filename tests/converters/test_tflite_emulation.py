"""TFLite's reference kernels on the host against LiteRT's own: equal on every value."""

from __future__ import annotations

import ctypes
import math
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import int8_networks
import int8_operators
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litert_kernels import answers

from farrier_contracts.errors import InputError
from farrier_converters.emulate import tflite
from farrier_converters.emulate.tflite import fixed, libm
from farrier_converters.measure import Child
from farrier_converters.model import Model
from farrier_converters.tflite.exposed import exposed
from farrier_converters.tflite.file import Operator, TfliteFile, read
from farrier_converters.tflite.write import write

pytest.importorskip("ai_edge_litert")

LIMIT = 1 << 30
SEEDS = range(3)
TRAINING = "mlperf_tiny/benchmark/training"
MICRO = "tflite_micro/tensorflow/lite/micro/examples"
NETWORKS = {
    "resnet8": f"{TRAINING}/image_classification/trained_models/pretrainedResnet_quant.tflite",
    "vww": f"{TRAINING}/visual_wake_words/trained_models/vww_96_int8.tflite",
    "kws": f"{TRAINING}/keyword_spotting/trained_models/kws_ref_model.tflite",
    "ad": f"{TRAINING}/anomaly_detection/trained_models/ad01_int8.tflite",
    "hello": f"{MICRO}/hello_world/models/hello_world_int8.tflite",
    "speech": f"{MICRO}/micro_speech/models/micro_speech_quantized.tflite",
    "mobilenet-v1": "coral/mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet-v2": "coral/mobilenet_v2_1.0_224_quant.tflite",
    "deeplab": "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite",
    "split-concat": "coral/tools/split_concat.tflite",
    "lstm": f"{MICRO}/mnist_lstm/trained_lstm_int8.tflite",
    "coral-lstm": "coral/keras_lstm_mnist_ptq.tflite",
}
LARGE = ("mobilenet-v2", "deeplab")
# what LiteRT 2.3's reference kernels lack (SUM of int8 is there, and writes nothing): its own are the same for these
NOT_IN_REFERENCE = ("elu", "tile", "depth-to-space")
NOT_COMPUTED = (("sum", "int8"),)


@pytest.mark.parametrize(("name", "dtype"), int8_operators.NAMES)
def test_an_operator_is_equal_on_every_value(name: str, dtype: str, tmp_path: Path) -> None:
    if (name, dtype) in NOT_COMPUTED:
        pytest.skip("LiteRT's reference kernel leaves the result unwritten")
    kernels = "builtin" if name in NOT_IN_REFERENCE else "reference"
    seen: set[float] = set()
    for seed in SEEDS:
        file = int8_operators.build(name, dtype, seed)
        feeds = int8_operators.feeds(file, seed)
        (theirs,) = answers(file, [feeds], kernels, tmp_path)
        ours = tflite.run(file, feeds)
        assert ours.keys() == theirs.keys()
        for tensor, expected in theirs.items():
            assert ours[tensor].dtype == expected.dtype
            np.testing.assert_array_equal(ours[tensor], expected)
            seen.update(expected.ravel()[:1000].tolist())
    assert len(seen) > 2, "the case tells nothing"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_equal_on_every_value(name: str, shared_data: Path, tmp_path: Path) -> None:
    file = read(shared_data / NETWORKS[name], max_bytes=LIMIT)
    named = {file.tensors[index].name: str(index) for index in file.inputs}
    rows = [int8_operators.feeds(file, seed) for seed in range(1 if name in LARGE else 4)]
    theirs = answers(
        exposed(file), [{named[n]: v for n, v in row.items()} for row in rows], "reference", tmp_path
    )
    for row, expected in zip(rows, theirs, strict=True):
        for step in tflite.steps(file, row):  # whole network: each operator is fed with ours
            for index, array in zip(step.operator.outputs, step.outputs, strict=True):
                np.testing.assert_array_equal(array, expected[str(index)], err_msg=str(step.operator))
        for index in file.outputs:
            np.testing.assert_array_equal(
                tflite.run(file, row)[file.tensors[index].name], expected[str(index)]
            )


@pytest.mark.parametrize("arithmetic", ["xnnpack", "integer-npu"])
@pytest.mark.parametrize("name", int8_networks.NAMES)
def test_a_network_of_ours_is_equal_on_every_value(
    name: str, arithmetic: str, resnet20: Model, shared_data: Path, tmp_path: Path
) -> None:
    """Quantized and lowered here: with float ends, and with integers from end to end."""
    file = exposed(int8_networks.ours(name, arithmetic, shared_data, resnet20).file)
    rows = [int8_operators.feeds(file, seed) for seed in range(2)]
    for row, expected in zip(rows, answers(file, rows, "reference", tmp_path), strict=True):
        for step in tflite.steps(file, row):
            for index, array in zip(step.operator.outputs, step.outputs, strict=True):
                if array.dtype.kind == "f":  # functions of the C library may differ in their last bit
                    np.testing.assert_allclose(array, expected[str(index)], rtol=1e-6)
                else:
                    np.testing.assert_array_equal(array, expected[str(index)], err_msg=str(step.operator))


@pytest.mark.parametrize("arithmetic", ["xnnpack", "integer-npu"])
def test_an_artifact_takes_what_its_model_takes(
    arithmetic: str, resnet20: Model, shared_data: Path, tmp_path: Path
) -> None:
    """Images with channels first, reals or integers at the ends, and any batch: as the measuring engine does."""
    lowered = int8_networks.ours("resnet20", arithmetic, shared_data, resnet20)
    assert "layouts" in lowered.options
    assert bool(lowered.options.get("quantized")) == (arithmetic == "integer-npu")
    path = tmp_path / "network.tflite"
    path.write_bytes(write(lowered.file))
    feeds = {"images": np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)}
    with Child(path, "litert", options={**lowered.options, "kernels": "reference"}) as child:
        theirs = child.run(feeds)
    ours = tflite.Artifact(lowered.file, lowered.options).run(feeds)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_array_equal(ours[name], expected)
    with pytest.raises(InputError, match="no array for the input 'images'"):
        tflite.Artifact(lowered.file, lowered.options).run({})


def test_resnet8_on_pictures_answers_as_the_file_does(shared_data: Path, cifar10, tmp_path: Path) -> None:
    pictures, labels = cifar10
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    raw = np.rint((pictures[:100].transpose(0, 2, 3, 1) * std + mean) * 255) - 128
    file = read(shared_data / NETWORKS["resnet8"], max_bytes=LIMIT)
    given_name, wanted = file.tensors[file.inputs[0]].name, file.tensors[file.outputs[0]].name
    rows = [{given_name: picture[None].astype(np.int8)} for picture in raw]
    theirs = np.concatenate([row[wanted] for row in answers(file, rows, "reference", tmp_path)])
    ours = tflite.run(file, {given_name: raw.astype(np.int8)})[wanted]  # all of them in one batch
    np.testing.assert_array_equal(ours, theirs)
    assert (ours.argmax(axis=1) == labels[:100]).mean() > 0.7


def test_what_is_not_an_input_is_refused_in_a_sentence(shared_data: Path) -> None:
    file = read(shared_data / NETWORKS["hello"], max_bytes=LIMIT)
    name = file.tensors[file.inputs[0]].name
    with pytest.raises(InputError, match="no array for the input"):
        tflite.run(file, {})
    with pytest.raises(InputError, match="int8 of shape"):
        tflite.run(file, {name: np.zeros((1, 1), np.float32)})
    with pytest.raises(InputError, match="int8 of shape"):
        tflite.run(file, {name: np.zeros(1, np.int8)})


@pytest.mark.parametrize(
    ("path", "operator"),
    [
        (f"{MICRO}/mnist_lstm/trained_lstm.tflite", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        (f"{MICRO}/hello_world/models/hello_world_float.tflite", "FULLY_CONNECTED"),
        (f"{TRAINING}/keyword_spotting/trained_models/kws_ref_model_float32.tflite", "CONV_2D"),
        ("coral/keras_lstm_mnist_ptq_edgetpu.tflite", "edgetpu-custom-op"),
    ],
)
def test_an_operator_without_a_kernel_is_named(shared_data: Path, path: str, operator: str) -> None:
    file = read(shared_data / path, max_bytes=LIMIT)
    with pytest.raises(InputError, match=f"operator [0-9]+, .*{operator}"):
        tflite.run(file, int8_operators.feeds(file, 0))


def test_a_tensor_that_nothing_computes_is_named() -> None:
    file = int8_operators.build("add", "int8", 0)
    broken = replace(file, inputs=file.inputs[:1])
    with pytest.raises(InputError, match="'t1', which nothing computes"):
        tflite.run(broken, int8_operators.feeds(file, 0))


def _mutated(file: TfliteFile, data: st.DataObject) -> TfliteFile:
    """Change an option, a constant, a scale or the wiring of the only operator."""
    operator: Operator = file.operators[0]
    number = st.integers(-3, 9) | st.sampled_from([-(1 << 31), 1 << 30])
    options: dict[str, Any] = {
        key: data.draw(number) if isinstance(value, int) and data.draw(st.booleans()) else value
        for key, value in operator.options.items()
    }
    inputs = tuple(
        data.draw(st.integers(-1, len(file.tensors) - 1)) if data.draw(st.integers(0, 4)) == 0 else i
        for i in operator.inputs
    )
    tensors = tuple(
        replace(
            tensor,
            data=np.array([data.draw(number) for _ in range(tensor.data.size)], np.int32).reshape(
                tensor.shape
            )
            if tensor.data is not None and tensor.dtype == "int32" and data.draw(st.booleans())
            else tensor.data,
            scales=tensor.scales[: data.draw(st.integers(0, 2))]
            if data.draw(st.booleans())
            else tensor.scales,
        )
        for tensor in file.tensors
    )
    return replace(file, tensors=tensors, operators=(replace(operator, inputs=inputs, options=options),))


@settings(max_examples=300, deadline=None)
@given(case=st.sampled_from(int8_operators.NAMES), data=st.data())
def test_a_damaged_operator_is_refused_or_computed(case: tuple[str, str], data: st.DataObject) -> None:
    file = _mutated(int8_operators.build(*case, seed=0), data)
    try:
        found = tflite.run(file, int8_operators.feeds(file, 0))
    except InputError as error:
        sentence = str(error)
    else:
        sentence = ""
        kinds = {file.tensors[index].name: file.tensors[index].dtype for index in file.outputs}
        assert {name: array.dtype for name, array in found.items()} == kinds
    assert "\n" not in sentence


def test_constants_are_those_of_the_source() -> None:
    """Literals of gemmlowp's fixedpoint.h and TFLite's common.h, which are written there as integers."""
    assert fixed.WIDE.constant(math.exp(-1 / 8)) == 1895147668
    assert fixed.WIDE.constant(1 / 3) == 715827883
    assert fixed.WIDE.constant(math.sqrt(2) / 2) == 1518500250
    assert fixed.WIDE.constant(math.log(2)) == 1488522236
    assert fixed.WIDE.constant(0.5**0.25) == 1805811301
    assert fixed.WIDE.constant(11 / 240 * 2**0.25) == 117049297
    assert fixed.WIDE.constant(1 / 20 * 2**0.25) == 127690142
    assert fixed.WIDE.constant(2 * 0.5**0.25 - 2**0.25) == 1057819769
    assert fixed.WIDE.constant(1 / 4 * 2**0.25) == 638450708
    assert (fixed.WIDE.constant(48 / 17, 2), fixed.WIDE.constant(-32 / 17, 2)) == (1515870810, -1010580540)
    powers = [fixed.WIDE.constant(math.exp(-(2.0**power))) for power in range(-2, 5)]
    assert powers == [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242]


@given(st.lists(st.integers(-(1 << 31), 0), min_size=1))
def test_the_exponential_is_near_the_real_one(numbers: list[int]) -> None:
    raw = np.array(numbers, np.int64)
    np.testing.assert_allclose(fixed.WIDE.exponential(raw, 5) / 2**31, np.exp(raw / 2**26), rtol=0, atol=2e-6)


@given(st.lists(st.integers(1, (1 << 31) - 1), min_size=1))
def test_roots_and_reciprocals_are_near_the_real_ones(numbers: list[int]) -> None:
    raw = np.array(numbers, np.int64)
    multiplier, exponent = fixed.inverse_root(raw)
    np.testing.assert_allclose(multiplier * 2.0 ** (exponent - 31), 1 / np.sqrt(raw), rtol=2e-6)
    share, bits = fixed.reciprocal(raw, 12)
    np.testing.assert_allclose(share * 2.0 ** (-31 - bits), 2.0**19 / raw, rtol=1e-8)


@given(st.lists(st.integers(1 << 19, (1 << 31) - 1), min_size=1))
def test_the_logarithm_is_near_the_real_one(numbers: list[int]) -> None:
    raw = np.array(numbers, np.int64)
    np.testing.assert_allclose(fixed.logarithm(raw, 12, 5) / 2**26, np.log(raw / 2**19), rtol=0, atol=2e-6)


@pytest.mark.parametrize("bits", range(7))
def test_functions_of_sixteen_bits_are_near_the_real_ones(bits: int) -> None:
    raw = np.arange(-(1 << 15), 1 << 15)
    real = raw / 2.0 ** (15 - bits)
    np.testing.assert_allclose(fixed.NARROW.tanh(raw, bits) / 2**15, np.tanh(real), rtol=0, atol=4e-4)
    logistic = 1 / (1 + np.exp(-real))
    np.testing.assert_allclose(fixed.NARROW.logistic(raw, bits) / 2**15, logistic, rtol=0, atol=4e-4)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc's own function")
def test_the_exponential_of_float32_is_the_c_library_s() -> None:
    theirs = ctypes.CDLL("libm.so.6").expf
    theirs.restype, theirs.argtypes = ctypes.c_float, (ctypes.c_float,)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=20_000), rng.uniform(-110, 95, 20_000), [0, np.inf, -np.inf]])
    single = x.astype(np.float32)
    np.testing.assert_array_equal(libm.exp(single), np.array([theirs(v) for v in single], np.float32))
