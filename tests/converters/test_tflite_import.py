"""Float TFLite files as ONNX, against LiteRT: real networks, what is refused, and damaged files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from farrier_contracts.errors import InputError
from farrier_converters import importers, model

LIMIT = 1 << 30
TRAINING = "mlperf_tiny/benchmark/training"
MICRO = "tflite_micro/tensorflow/lite/micro/examples"
RESNET8 = f"{TRAINING}/image_classification/trained_models/pretrainedResnet.tflite"
VWW = f"{TRAINING}/visual_wake_words/trained_models/vww_96_float.tflite"
AD = f"{TRAINING}/anomaly_detection/trained_models/ad01_fp32.tflite"
KWS = f"{TRAINING}/keyword_spotting/trained_models/kws_ref_model_float32.tflite"
HELLO = f"{MICRO}/hello_world/models/hello_world_float.tflite"
LSTM = f"{MICRO}/mnist_lstm/trained_lstm.tflite"
ULTRAFACE = "ultraface/tflite/pretrained/version-RFB-320_without_postprocessing.tflite"
# file -> transposes that are left: one at the edge of an image, and one for each head that is read as a list
REAL = {RESNET8: 1, VWW: 1, AD: 0, HELLO: 0, LSTM: 2, ULTRAFACE: 9}


def interpreter(path: Path):
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_path=str(path), num_threads=1)
    found.allocate_tensors()
    return found


def litert(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One run of a fresh interpreter, rows one by one."""
    engine, rows = interpreter(path), []
    for index in range(len(next(iter(feeds.values())))):
        engine.reset_all_variables()
        for detail in engine.get_input_details():
            engine.set_tensor(detail["index"], feeds[detail["name"]][index : index + 1])
        engine.invoke()
        rows.append({d["name"]: engine.get_tensor(d["index"]) for d in engine.get_output_details()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def onnx_run(found: model.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(found.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in found.outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", REAL)
def test_a_real_network_computes_what_litert_computes_in_batches_of_any_size(
    shared_data: Path, name: str
) -> None:
    path = shared_data / name
    found = model.load(path)
    assert all(tensor.shape[0] == -1 for tensor in (*found.inputs, *found.outputs))
    details = interpreter(path).get_input_details()
    assert {t.name: t.shape[1:] for t in found.inputs} == {d["name"]: tuple(d["shape"][1:]) for d in details}
    rng = np.random.default_rng(3)
    feeds = {t.name: rng.normal(size=(3, *t.shape[1:])).astype(np.float32) for t in found.inputs}
    ours, theirs = onnx_run(found, feeds), litert(path, feeds)
    assert ours.keys() == theirs.keys()
    for output, values in theirs.items():
        np.testing.assert_allclose(ours[output], values, rtol=1e-4, atol=1e-4)
    assert Counter(node.op_type for node in found.proto.graph.node)["Transpose"] == REAL[name]


def test_resnet8_answers_pictures_as_its_makers_measured(shared_data: Path, cifar10) -> None:
    pictures, labels = cifar10
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    raw = np.rint((pictures.transpose(0, 2, 3, 1) * std + mean) * 255).astype(np.float32)
    found = model.load(shared_data / RESNET8)
    answers = onnx_run(found, {"input_1": raw})["Identity"].argmax(1)
    assert 0.76 < (answers == labels).mean() < 0.84  # 79.77 % of all 10,000


def test_the_check_says_nothing_of_a_good_import_and_how_far_a_hybrid_one_is_off(shared_data: Path) -> None:
    assert importers.read(shared_data / HELLO, max_bytes=LIMIT).check() == ()
    hybrid = importers.read(shared_data / KWS, max_bytes=LIMIT)
    assert "8 bits" in hybrid.notes[0]
    (warning,) = hybrid.check()
    assert "differs from LiteRT's by up to 0.0" in warning
    assert "rounds its activations" in warning


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("coral/mobilenet_v1_0.25_128_quant.tflite", r"operator 0 \(CONV_2D\) is quantized already"),
        ("coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite", r"operator 0 \(edgetpu-custom-op\) is a custom"),
        ("coral/invalid_models/model_invoking_error.tflite", "is a custom operator"),
        (f"{MICRO}/micro_speech/models/audio_preprocessor_int8.tflite", r"operator 0 \(SignalWindow\)"),
    ],
)
def test_what_cannot_be_imported_is_refused_by_name_and_index(
    shared_data: Path, name: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        model.load(shared_data / name)


@pytest.mark.parametrize("name", [HELLO, RESNET8, LSTM])
def test_damaged_files_end_in_one_sentence(shared_data: Path, tmp_path: Path, name: str) -> None:
    content = (shared_data / name).read_bytes()
    rng = np.random.default_rng(11)
    path = tmp_path / "damaged.tflite"
    # descriptions of tensors and operators lie at both ends; weights lie between
    edges = np.r_[8 : min(len(content), 4000), max(8, len(content) - 4000) : len(content)]
    sentences = []
    for attempt in range(150):
        damaged = bytearray(content)
        if attempt % 5 == 0:
            del damaged[int(rng.integers(8, len(content))) :]
        for position in rng.choice(edges, int(rng.integers(1, 8))):
            if position < len(damaged):
                damaged[position] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            model.load(path)
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) > 20
    assert all("\n" not in s and str(path) in s for s in sentences)


def test_any_bytes_behind_the_mark_end_in_one_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "noise.tflite"
    for size in (0, 4, 7, 8, 12, 64, 400):
        for _ in range(20):
            path.write_bytes((b"\x10\x00\x00\x00TFL3" + rng.bytes(size))[: size or None])
            with pytest.raises(InputError):
                model.load(path)
