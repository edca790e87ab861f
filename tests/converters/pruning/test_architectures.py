"""Networks of every kind lose a third of each group of channels, and compute what their masked twins compute."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto, load
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import Groups, groups_of
from farrier_converters.pruning.mask import masked

torch = pytest.importorskip(
    "torch", reason="the architectures are written in PyTorch, which is not installed"
)
if find_spec("onnxscript") is None:
    pytest.skip("torch exports to ONNX with onnxscript, which is not installed", allow_module_level=True)

from architectures import ARCHITECTURES  # noqa: E402

TOLERANCE = 1e-4  # of the largest output
SHARE = 0.3  # of each group
MATTERS = 1e-3  # of the largest output: masking has to change it by more than this
SEEDS = (0, 1)
VOICE = 576  # samples in a frame
TINY = "mlperf_tiny/benchmark/training"
REAL = {
    "ultraface": ("ultraface/models/onnx/version-RFB-320.onnx", 0.9),
    "ultraface_heads": ("ultraface/models/onnx/version-RFB-320_without_postprocessing.onnx", 0.99),
    "silero_vad": ("silero_vad/src/silero_vad/data/silero_vad_16k_op15.onnx", 0.5),
    "image_classification": (f"{TINY}/image_classification/trained_models/pretrainedResnet.tflite", 0.99),
    "keyword_spotting": (f"{TINY}/keyword_spotting/trained_models/kws_ref_model_float32.tflite", 0.99),
    "visual_wake_words": (f"{TINY}/visual_wake_words/trained_models/vww_96_float.tflite", 0.99),
    "anomaly_detection": (f"{TINY}/anomaly_detection/trained_models/ad01_fp32.tflite", 0.99),
}


@pytest.fixture(scope="session")
def exported(request: pytest.FixtureRequest) -> Callable[[str], onnx.ModelProto]:
    """Export a network, or read what an earlier run exported from the same sources with the same torch."""
    sources = sorted(Path(__file__).with_name("architectures").glob("*.py"))
    digest = hashlib.sha256(torch.__version__.encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = request.config.cache.mkdir("architectures")

    def export(name: str) -> onnx.ModelProto:
        path = folder / f"{name}-{digest.hexdigest()[:16]}.onnx"
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(ARCHITECTURES[name].export().SerializeToString())
            part.replace(path)
        return onnx.load(path)

    return export


def choose(groups: Groups, seed: int) -> np.ndarray:
    """Draw `SHARE` of each group's units, at least one and not all."""
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(group.units, min(max(1, round(SHARE * group.size)), group.size - 1), replace=False)
        for group in groups.groups
    ]
    return np.concatenate(drawn)


def floats(model: Model) -> dict[str, np.ndarray]:
    """Return the numbers that a model was trained to, by name."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def covered(groups: Groups) -> float:
    """Return the share of the weights that lie on at least one axis that can be pruned."""
    weights = floats(groups.model)
    marks = {name: np.zeros(value.shape, bool) for name, value in weights.items()}
    for place in (place for group in groups.groups if group.size > 1 for place in group.places):
        np.moveaxis(marks[place.tensor], place.axis, 0)[place.positions.ravel()] = True
    return sum(int(mark.sum()) for mark in marks.values()) / sum(mark.size for mark in marks.values())


def agree(model: Model, twin: Model, dense: Model, feeds: dict[str, np.ndarray]) -> None:
    """Check the pruned model's outputs against the masked ones, and that masking changed something."""
    found, expected, before = (run.once(m.proto, feeds) for m in (model, twin, dense))
    scale = max(float(np.abs(value).max()) for value in expected)
    assert [a.shape for a in found] == [b.shape for b in expected]
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() <= TOLERANCE * scale
    assert max(float(np.abs(a - b).max()) for a, b in zip(before, expected, strict=True)) > MATTERS * scale


def draw(model: Model, seed: int) -> dict[str, np.ndarray]:
    """Draw an input; that of the voice detector has a free length, of which it takes one."""
    feeds = run.sample(model, seed=seed)
    if feeds.get("input", np.zeros(2)).shape == (1, 1):
        feeds["input"] = np.random.default_rng(seed).normal(0, 0.3, (1, VOICE)).astype(np.float32)
    return feeds


def prune_and_compare(
    model: Model, floor: float, feeds: Callable[[int], list[dict[str, np.ndarray]]]
) -> None:
    groups = groups_of(model)
    whole = "; ".join(f"{f.op} {f.node} ({f.channels}): {f.reason}" for f in groups.frozen)
    assert covered(groups) >= floor, whole
    assert all(frozen.reason and frozen.node for frozen in groups.frozen)
    before = sum(value.size for value in floats(model).values())
    for seed in SEEDS:
        gone = choose(groups, seed)
        pruned, twin = cut(groups, gone), masked(groups, gone)
        onnx.checker.check_model(pruned.proto, full_check=True)
        after = sum(value.size for value in floats(pruned).values())
        assert (
            after < (1 - SHARE * floor) * before + 4
        )  # each covered weight goes with a chance of SHARE or more
        for given in feeds(seed):
            agree(pruned, twin, model, given)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_pruned_architecture_computes_what_its_masked_twin_does(name, exported, apply):
    found = ARCHITECTURES[name]
    model = apply(from_proto(exported(name), name), "clean")
    read = {spec.name for spec in model.inputs}
    sizes = ((2, 0), (5, found.more)) if found.dynamic else ((2, 0),)

    def feeds(seed: int) -> list[dict[str, np.ndarray]]:
        given = [found.feeds(batch, seed, more=more) for batch, more in sizes]
        return [{key: value for key, value in row.items() if key in read} for row in given]

    prune_and_compare(model, found.floor, feeds)


@pytest.mark.parametrize("name", REAL)
def test_a_pruned_network_of_others_computes_what_its_masked_twin_does(name, shared_data, apply):
    path, floor = REAL[name]
    model = apply(load(shared_data / path), "clean")
    prune_and_compare(model, floor, lambda seed: [draw(model, seed)])
