"""INT8 TFLite, operator by operator: engines within one quantum of exact arithmetic, fed their own inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import int8_networks
import int8_operators
import numpy as np
import pytest
from litert_kernels import KERNELS, answers

from farrier_converters.emulate.tflite.exact import exact
from farrier_converters.model import Model
from farrier_converters.tflite.exposed import exposed
from farrier_converters.tflite.file import Operator, TfliteFile, read

pytest.importorskip("ai_edge_litert")

LIMIT = 1 << 30
SEEDS = range(3)
TRAINING = "mlperf_tiny/benchmark/training"
NETWORKS = {
    "resnet8": f"{TRAINING}/image_classification/trained_models/pretrainedResnet_quant.tflite",
    "vww": f"{TRAINING}/visual_wake_words/trained_models/vww_96_int8.tflite",
    "kws": f"{TRAINING}/keyword_spotting/trained_models/kws_ref_model.tflite",
    "ad": f"{TRAINING}/anomaly_detection/trained_models/ad01_int8.tflite",
    "mobilenet-v1": "coral/mobilenet_v1_0.25_128_quant.tflite",
}
# LiteRT 2.3 has no reference kernel for these, or (SUM of int8) one that writes nothing
NOT_IN_REFERENCE = ("elu", "tile", "depth-to-space")
NOT_COMPUTED = (("sum", "int8"),)
PLACE_STEP = 2.0**-10  # of a pixel: how LiteRT's own int8 RESIZE_BILINEAR rounds the distance of two places
QUANTA = 255


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """In quanta; reals (of DEQUANTIZE) may differ in their last bits."""
    if ours.dtype.kind == "f":
        return 0.0 if np.allclose(ours, theirs, rtol=1e-6, atol=1e-6) else np.inf
    return float(np.abs(ours.astype(np.int64) - theirs).max(initial=0))


def allowed(file: TfliteFile, operator: Operator, kernels: str) -> float:
    """One quantum. A resized image may be read next to the place: its error grows with the distance from the corner."""
    if operator.name != "RESIZE_BILINEAR" or kernels == "xnnpack":
        return 1
    image = file.tensors[operator.inputs[0]]
    if image.dtype != "int8":
        return 1
    sizes = file.tensors[operator.inputs[1]].data
    assert sizes is not None
    return 1 + QUANTA * PLACE_STEP * float(sizes.sum()) / 2


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("name", "dtype"), int8_operators.NAMES)
def test_an_operator_is_within_one_quantum(name: str, dtype: str, kernels: str, tmp_path: Path) -> None:
    if kernels == "reference" and (name in NOT_IN_REFERENCE or (name, dtype) in NOT_COMPUTED):
        pytest.skip("LiteRT 2.3 has no such reference kernel, or one that leaves the result unwritten")
    for seed in SEEDS:
        file = int8_operators.build(name, dtype, seed)
        feeds = int8_operators.feeds(file, seed)
        (theirs,) = answers(file, [feeds], kernels, tmp_path)
        (operator,) = file.operators
        for index, ours in zip(
            operator.outputs, exact(file, operator, _inputs(file, operator, feeds)), strict=True
        ):
            found = theirs[file.tensors[index].name]
            assert difference(ours, found) <= allowed(file, operator, kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_within_one_quantum_at_each_operator(
    name: str, kernels: str, shared_data: Path, tmp_path: Path
) -> None:
    file = exposed(read(shared_data / NETWORKS[name], max_bytes=LIMIT))
    rows = [int8_operators.feeds(file, seed) for seed in SEEDS]
    for feeds, found in zip(rows, answers(file, rows, kernels, tmp_path), strict=True):
        for operator, index, ours in _exactly(file, {**found, **feeds}):
            assert difference(ours, found[str(index)]) <= 1, operator


@pytest.mark.parametrize("arithmetic", ["xnnpack", "integer-npu"])
@pytest.mark.parametrize("name", int8_networks.NAMES)
def test_a_network_of_ours_is_within_one_quantum_at_each_operator(
    name: str, arithmetic: str, resnet20: Model, shared_data: Path, tmp_path: Path
) -> None:
    file = exposed(int8_networks.ours(name, arithmetic, shared_data, resnet20).file)
    feeds = int8_operators.feeds(file, 0)
    for kernels in KERNELS:
        (found,) = answers(file, [feeds], kernels, tmp_path)
        for operator, index, ours in _exactly(file, {**found, **feeds}):
            if ours.dtype.kind in "iu":
                assert difference(ours, found[str(index)]) <= 1, (kernels, operator)


def test_a_wrong_scale_shows_at_its_operator(shared_data: Path, tmp_path: Path) -> None:
    """What the bound is for: a file whose third convolution says another scale than was computed with."""
    file = exposed(read(shared_data / NETWORKS["resnet8"], max_bytes=LIMIT))
    feeds = int8_operators.feeds(file, 0)
    (found,) = answers(file, [feeds], "builtin", tmp_path)
    wrong = file.operators[2]
    changed = file.tensors[wrong.outputs[0]]
    tensors = list(file.tensors)
    tensors[changed.index] = replace(changed, scales=changed.scales * np.float32(1.2))
    file = replace(file, tensors=tuple(tensors))
    far = {
        o.index for o, i, ours in _exactly(file, {**found, **feeds}) if difference(ours, found[str(i)]) > 1
    }
    assert wrong.index in far
    assert far <= {wrong.index, *(o.index for o in file.operators if wrong.outputs[0] in o.inputs)}


def _inputs(file: TfliteFile, operator: Operator, known: dict[str, np.ndarray]) -> list[np.ndarray | None]:
    return [None if i < 0 else known.get(file.tensors[i].name, file.tensors[i].data) for i in operator.inputs]


def _exactly(file: TfliteFile, known: dict[str, np.ndarray]) -> Iterator[tuple[Operator, int, np.ndarray]]:
    """Each operator's outputs in exact arithmetic, of inputs that are `known`."""
    for operator in file.operators:
        for index, ours in zip(
            operator.outputs, exact(file, operator, _inputs(file, operator, known)), strict=True
        ):
            yield operator, index, ours
