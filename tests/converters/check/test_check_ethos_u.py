"""The Ethos-U's rules against what Vela leaves to the processor, where Vela is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from farrier_converters import tools
from farrier_converters.check import rules
from farrier_converters.tflite.file import TfliteFile, read
from farrier_converters.tflite.write import write

ON_NPU = "CUSTOM:ethos"
LIMIT_S = 120
INT8 = "mlperf_tiny/benchmark/training"
MODELS = (
    "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite",
    "coral/keras_lstm_mnist_ptq.tflite",
    f"{INT8}/keyword_spotting/trained_models/kws_ref_model.tflite",
    f"{INT8}/image_classification/trained_models/pretrainedResnet.tflite",  # float: nothing of it
    "tflite_micro/tensorflow/lite/micro/examples/micro_speech/models/audio_preprocessor_int8.tflite",
)


@pytest.fixture(scope="module")
def vela() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(tools.environment_python("vela").parent)])
    found = shutil.which("vela", path=path)
    if found is None:
        pytest.skip("Vela is not installed (pip install ethos-u-vela)")
    return found


def left_by_vela(vela: str, path: Path, folder: Path) -> Counter[tuple[str, tuple[tuple[int, ...], ...]]]:
    command = [vela, str(path), "--output-dir", str(folder), "--accelerator-config", "ethos-u55-128"]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
    compiled = read(folder / f"{path.stem}_vela.tflite", max_bytes=1 << 28)
    return kinds(compiled, {o.index for o in compiled.operators if not o.name.startswith(ON_NPU)})


def kinds(file: TfliteFile, chosen: set[int]) -> Counter[tuple[str, tuple[tuple[int, ...], ...]]]:
    """Count operators by name and shapes of their results: Vela renames tensors."""
    operators = [operator for operator in file.operators if operator.index in chosen]
    return Counter((o.name, tuple(file.tensors[i].shape for i in o.outputs)) for o in operators)


def predicted(file: TfliteFile) -> Counter[tuple[str, tuple[tuple[int, ...], ...]]]:
    placements = rules.of_tflite("ethos-u").place(file)
    return kinds(file, {index for index, placement in enumerate(placements) if placement.unit == "cpu"})


@pytest.mark.parametrize("path", MODELS)
def test_the_prediction_is_what_vela_does(shared_data: Path, tmp_path: Path, vela: str, path: str) -> None:
    file = read(shared_data / path, max_bytes=1 << 28)
    assert predicted(file) == left_by_vela(vela, shared_data / path, tmp_path)


def test_operators_side_by_side(operators_side_by_side: TfliteFile, tmp_path: Path, vela: str) -> None:
    path = tmp_path / "all.tflite"
    path.write_bytes(write(operators_side_by_side))
    assert predicted(operators_side_by_side) == left_by_vela(vela, path, tmp_path)


@pytest.mark.parametrize(
    ("index", "why"),
    [("MIRROR_PAD", None), ("EXPAND_DIMS", None), ("GATHER", "no GATHER"), ("ARG_MAX", None)],
)
def test_single_operators_without_vela(
    operators_side_by_side: TfliteFile, index: str, why: str | None
) -> None:
    placements = rules.of_tflite("ethos-u").place(operators_side_by_side)
    operator = next(o for o in operators_side_by_side.operators if o.name == index)
    reason = placements[operator.index].reason
    assert (reason is None) == (why is None)
    assert (why or "") in (reason or "")
