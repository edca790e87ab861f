"""The engines, with real models: published figures and known answers of the shared data."""

from __future__ import annotations

import numpy as np
import pytest

from farrier_agent import engines
from farrier_agent.runtime import Runtime
from farrier_contracts.errors import BundleError
from farrier_contracts.tensors import TensorSpec


def test_the_null_engine_answers_zeros_of_the_right_shape(make_bundle):
    bundle = make_bundle(
        b"",
        [TensorSpec("x", "INT8", (-1, 4))],
        [TensorSpec("y", "FP32", (-1, 2, -1)), TensorSpec("z", "INT64", (3,))],
        engine="null",
    )
    with Runtime(bundle) as runtime:
        outputs = runtime.infer({"x": np.zeros((5, 4), np.int8)})
    assert {name: (a.shape, a.dtype.name, a.any()) for name, a in outputs.items()} == {
        "y": ((5, 2, 1), "float32", False),
        "z": ((3,), "int64", False),
    }


def test_an_unknown_engine_is_one_sentence(make_bundle):
    bundle = make_bundle(b"", [], [], engine="abacus")
    with pytest.raises(BundleError, match="'abacus'"):
        engines.load(bundle)


def test_hello_world_float_is_a_sine(make_bundle, shared_data):
    path = (
        shared_data
        / "tflite_micro/tensorflow/lite/micro/examples/hello_world/models/hello_world_float.tflite"
    )
    specs = [TensorSpec("x", "FP32", (-1, 1))], [TensorSpec("y", "FP32", (-1, 1))]
    bundle = make_bundle(path.read_bytes(), *specs, engine="litert", max_batch=16)
    x = np.linspace(0, 2 * np.pi, 101, dtype=np.float32).reshape(-1, 1)
    with Runtime(bundle) as runtime:
        together = runtime.infer({"x": x})["y"]
        alone = np.concatenate([runtime.infer({"x": x[i : i + 1]})["y"] for i in range(len(x))])
    assert np.abs(together - np.sin(x)).max() == pytest.approx(0.046, abs=0.001)
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("declared", ["FP32", "INT8"])
def test_hello_world_int8_quantizes_where_the_manifest_says_floats(make_bundle, shared_data, declared):
    path = (
        shared_data / "tflite_micro/tensorflow/lite/micro/examples/hello_world/models/hello_world_int8.tflite"
    )
    bundle = make_bundle(
        path.read_bytes(),
        [TensorSpec("x", declared, (1, 1))],
        [TensorSpec("y", declared, (1, 1))],
        engine="litert",
    )
    x = np.linspace(0, 2 * np.pi, 101, dtype=np.float32)
    with Runtime(bundle) as runtime:
        if declared == "INT8":
            assert runtime.infer({"x": np.array([[0]], np.int8)})["y"].dtype == np.int8
            return
        y = np.array([runtime.infer({"x": v.reshape(1, 1)})["y"][0, 0] for v in x])
    assert np.abs(y - np.sin(x)).max() == pytest.approx(0.116, abs=0.005)


@pytest.mark.parametrize("name", ["trained_lstm.tflite", "trained_lstm_int8.tflite"])
def test_the_lstm_reads_all_ten_digits(make_bundle, shared_data, name):
    from PIL import Image

    folder = shared_data / "tflite_micro/tensorflow/lite/micro/examples/mnist_lstm"
    bundle = make_bundle(
        (folder / name).read_bytes(),
        [TensorSpec("x", "FP32", (1, 28, 28))],
        [TensorSpec("y", "FP32", (1, 10))],
        engine="litert",
        cache=False,
    )
    with Runtime(bundle) as runtime:
        for digit in range(10):
            image = Image.open(folder / "samples" / f"sample{digit}.png").convert("L")
            x = (np.asarray(image, np.float32) / 255).reshape(1, 28, 28)
            assert runtime.infer({"x": x})["y"].argmax() == digit


@pytest.mark.parametrize(
    ("picture", "label"), [("cat.bmp", "cat"), ("bird.bmp", "chickadee"), ("parrot.jpg", "macaw")]
)
def test_mobilenet_knows_its_animals(make_bundle, shared_data, picture, label):
    from PIL import Image

    [model] = (shared_data / "coral").rglob("mobilenet_v1_0.25_128_quant.tflite")
    [photograph] = (shared_data / "coral").rglob(picture)
    [labels] = (shared_data / "coral").rglob("imagenet_labels.txt")
    bundle = make_bundle(
        model.read_bytes(),
        [TensorSpec("input", "UINT8", (1, 128, 128, 3))],
        [TensorSpec("scores", "UINT8", (1, 1001))],
        engine="litert",
    )
    image = Image.open(photograph).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
    with Runtime(bundle) as runtime:
        scores = runtime.infer({"input": np.asarray(image)[None]})["scores"]
    assert label in labels.read_text().splitlines()[int(scores.argmax())].lower()


def test_visual_wake_words_sees_the_person(make_bundle, shared_data):
    from PIL import Image

    [model] = (shared_data / "mlperf_tiny").rglob("vww_96_int8.tflite")
    bundle = make_bundle(
        model.read_bytes(),
        [TensorSpec("image", "FP32", (1, 96, 96, 3))],
        [TensorSpec("person", "FP32", (1, 2))],
        engine="litert",
    )
    with Runtime(bundle) as runtime:
        for picture, want in (("grace_hopper.bmp", 0.824), ("cat.bmp", 0.047), ("hot_dog.jpg", 0.086)):
            [photograph] = (shared_data / "coral").rglob(picture)
            image = Image.open(photograph).convert("RGB").resize((96, 96), Image.Resampling.BICUBIC)
            x = (np.asarray(image, np.float32) / 255)[None]
            assert runtime.infer({"image": x})["person"][0, 1] == pytest.approx(want, abs=0.01)


def test_ultraface_gives_the_same_faces_in_both_engines(make_bundle, shared_data):
    from PIL import Image

    [onnx] = (shared_data / "ultraface").rglob("version-RFB-320_without_postprocessing.onnx")
    [tflite] = (shared_data / "ultraface").rglob("*320*without_postprocessing.tflite")
    outputs = [TensorSpec("scores", "FP32", (1, 4420, 2)), TensorSpec("boxes", "FP32", (1, 4420, 4))]
    first = make_bundle(onnx.read_bytes(), [TensorSpec("input", "FP32", (1, 3, 240, 320))], outputs)
    second = make_bundle(
        tflite.read_bytes(), [TensorSpec("input", "FP32", (1, 240, 320, 3))], outputs, engine="litert"
    )
    [photograph] = (shared_data / "coral").rglob("grace_hopper.bmp")
    image = np.asarray(Image.open(photograph).convert("RGB").resize((320, 240)), np.float32)
    x = ((image - 127) / 128)[None]
    with Runtime(first) as a, Runtime(second) as b:
        want = a.infer({"input": x.transpose(0, 3, 1, 2)})
        got = b.infer({"input": x})
    assert np.abs(got["scores"] - want["scores"]).max() < 1e-3
    assert np.abs(got["boxes"] - want["boxes"]).max() < 2e-3
    assert (want["scores"][0, :, 1] > 0.7).any()


def test_layouts_give_tflite_the_axes_of_the_model(make_bundle, shared_data):
    [onnx] = (shared_data / "ultraface").rglob("version-RFB-320_without_postprocessing.onnx")
    [tflite] = (shared_data / "ultraface").rglob("*320*without_postprocessing.tflite")
    inputs = [TensorSpec("input", "FP32", (1, 3, 240, 320))]
    outputs = [TensorSpec("scores", "FP32", (1, 4420, 2)), TensorSpec("boxes", "FP32", (1, 4, 4420))]
    layouts = {"input": [0, 2, 3, 1], "boxes": [0, 2, 1]}
    first = make_bundle(onnx.read_bytes(), inputs, [outputs[0], TensorSpec("boxes", "FP32", (1, 4420, 4))])
    second = make_bundle(tflite.read_bytes(), inputs, outputs, engine="litert", options={"layouts": layouts})
    x = np.random.default_rng(3).normal(size=(1, 3, 240, 320)).astype(np.float32)
    with Runtime(first) as a, Runtime(second) as b:
        want, got = a.infer({"input": x}), b.infer({"input": x})
    assert got["boxes"].shape == (1, 4, 4420)
    assert np.abs(got["scores"] - want["scores"]).max() < 1e-3
    assert np.abs(got["boxes"] - want["boxes"].transpose(0, 2, 1)).max() < 2e-3


def test_a_layout_may_carry_the_batch_along(make_bundle, shared_data):
    path = (
        shared_data
        / "tflite_micro/tensorflow/lite/micro/examples/hello_world/models/hello_world_float.tflite"
    )
    specs = [TensorSpec("x", "FP32", (1, -1))], [TensorSpec("y", "FP32", (1, -1))]
    bundle = make_bundle(
        path.read_bytes(), *specs, engine="litert", options={"layouts": {"x": [1, 0], "y": [1, 0]}}
    )
    x = np.linspace(0, 2 * np.pi, 7, dtype=np.float32)[None]
    with Runtime(bundle) as runtime:
        y = runtime.infer({"x": x})["y"]
    assert y.shape == (1, 7) and y.flags.c_contiguous
    assert np.abs(y - np.sin(x)).max() < 0.05


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layouts": {"image": [0, 1, 2, 2]}}, "layout of 'image'"),
        ({"layouts": {"image": [0, 1, 2]}}, "layout of 'image'"),
        ({"layouts": {"image": [False, True, 2, 3]}}, "layout of 'image'"),
        ({"layouts": {"picture": [0]}}, "layout of 'picture'"),
        ({"layouts": [1]}, "malformed"),
        ({"quantized": ["picture"]}, "'picture', which is no tensor"),
        ({"quantized": [[]]}, "no tensor"),
        ({"quantized": "image"}, "malformed"),
        ({"quantized": ["person"]}, "'person' is int8 in the model but INT8 in the manifest"),
    ],
)
def test_options_that_do_not_fit_the_file_are_one_sentence(make_bundle, shared_data, options, sentence):
    [model] = (shared_data / "mlperf_tiny").rglob("vww_96_int8.tflite")
    bundle = make_bundle(
        model.read_bytes(),
        [TensorSpec("image", "FP32", (1, 96, 96, 3))],
        [TensorSpec("person", "INT8", (1, 2))],
        engine="litert",
        options=options,
    )
    with pytest.raises(BundleError, match=sentence):
        engines.load(bundle)


def test_quantized_ends_agree_with_what_the_workstation_measured(make_bundle, shared_data):
    workstation = pytest.importorskip("farrier_converters.measure.litert")

    [model] = (shared_data / "mlperf_tiny").rglob("vww_96_int8.tflite")
    options = {"layouts": {"input_1_int8": [0, 2, 3, 1]}, "quantized": ["input_1_int8", "Identity_int8"]}
    bundle = make_bundle(
        model.read_bytes(),
        [TensorSpec("input_1_int8", "FP32", (1, 3, 96, 96))],
        [TensorSpec("Identity_int8", "FP32", (1, 2))],
        engine="litert",
        options=options,
    )
    x = np.random.default_rng(5).uniform(-0.1, 1.1, (1, 3, 96, 96)).astype(np.float32)
    with Runtime(bundle) as runtime:
        got = runtime.infer({"input_1_int8": x})["Identity_int8"]
    want = workstation.LiteRtSession(model, threads=1, options=options).run({"input_1_int8": x})[
        "Identity_int8"
    ]
    np.testing.assert_array_equal(got, want)


def test_models_that_litert_refuses_give_one_sentence(make_bundle, shared_data):
    [broken] = (shared_data / "coral").rglob("model_invoking_error.tflite")
    bundle = make_bundle(broken.read_bytes(), [], [], engine="litert")
    with pytest.raises(BundleError, match="cannot load the model") as error:
        engines.load(bundle)
    assert "\n" not in str(error.value)
