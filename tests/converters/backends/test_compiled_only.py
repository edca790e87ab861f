"""Artifacts for processors that are not here: what is in the file."""

from __future__ import annotations

import json
import uuid
import zipfile

import numpy as np
import pytest

from farrier_contracts import targets
from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, passes
from farrier_converters.compilers import iree
from farrier_converters.compilers.coreml import SPACE, widened
from farrier_converters.compilers.vela import compile_file
from farrier_converters.measure import Child
from farrier_converters.tools import process

COREML = Toolchain("coreml", "mlpackage.zip", "coreml", ("fp32", "fp16"))
STABLEHLO = Toolchain("stablehlo", "stablehlo", "stablehlo", ("fp32",))
TINY = "mlperf_tiny/benchmark/training"


def test_core_ml(small, apply, tmp_path, tool):
    tool("coreml")
    half = apply(small, "clean", "fuse", "fp16", context=passes.Context())
    made = compilers.get("coreml").compile(half, COREML, tmp_path)
    with zipfile.ZipFile(made.path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        manifest = json.loads(archive.read("model.mlpackage/Manifest.json"))
        program = archive.read("model.mlpackage/Data/com.apple.CoreML/model.mlmodel")
    root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    assert manifest["rootModelIdentifier"] == str(uuid.uuid5(SPACE, root)), "the same in every package"
    assert b"conversion_date" not in program
    assert b"\x01x" in program  # names of inputs and outputs are the model's: length, then text
    assert b"\x01y" in program
    weights = sum(int(np.prod(t.dims)) for t in small.proto.graph.initializer)
    assert sizes["model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"] < 4 * weights


def test_core_ml_takes_floats(small_int8, tmp_path, tool):
    tool("coreml")
    with pytest.raises(InputError, match="takes no quantized graph"):
        compilers.get("coreml").compile(small_int8, COREML, tmp_path)


def test_half_floats_become_single_ones(small, apply, outputs, feeds):
    half = apply(small, "clean", "fuse", "fp16", context=passes.Context())
    single, had = widened(half)
    assert had
    assert not widened(single)[1]
    np.testing.assert_allclose(outputs(single, feeds)[0], outputs(half, feeds)[0], atol=2e-2)


def test_stablehlo(small, feeds, tmp_path, tool, runtime_outputs):
    """Portable: another compiler reads it, and its answers are the graph's."""
    tool("xla")
    made = compilers.get("stablehlo").compile(small, STABLEHLO, tmp_path)
    assert made.path.read_bytes()[:4] == b"ML\xefR", "MLIR bytecode"
    tool("iree")
    target = tmp_path / "small.vmfb"
    files = {"source": str(made.path), "target": str(target)}
    process.call("iree", {**files, "kind": "stablehlo", "options": iree.flags(iree.HOST)}, folder=tmp_path)
    with Child(target, "iree", options=made.options) as child:
        found = child.run(feeds)["y"]
    np.testing.assert_allclose(found, runtime_outputs(small, feeds)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "processor"),
    [
        ("anomaly_detection/trained_models/ad01_int8.tflite", {}),
        ("keyword_spotting/trained_models/kws_ref_model.tflite", {}),
        ("image_classification/trained_models/pretrainedResnet_quant.tflite", {}),
    ],
)
def test_vela_takes_whole_networks(name, processor, shared_data, tmp_path, tool):
    tool("vela")
    mapped = compile_file(shared_data / TINY / name, tmp_path / "out.tflite", "ethos-u55-128")
    assert mapped.processor == processor
    assert not mapped.notes
    assert 0 < mapped.inference_ms < 100
    assert mapped.flash_bytes > 10_000
    assert mapped.memory_bytes > 0


def test_vela_names_what_it_leaves(shared_data, tmp_path, tool):
    tool("vela")
    source = shared_data / TINY / "image_classification/trained_models/pretrainedResnet.tflite"
    mapped = compile_file(source, tmp_path / "out.tflite", "ethos-u55-128")
    assert mapped.processor["CONV_2D"] > 5, "a float network"
    assert any(note.endswith("CONV_2D: left to the Cortex-M by Vela") for note in mapped.notes)


def test_vela_refuses_in_a_sentence(tmp_path, tool, shared_data):
    tool("vela")
    (tmp_path / "bad.tflite").write_bytes(b"\x10\0\0\0TFL3" + bytes(100))
    with pytest.raises(InputError, match=r"^Vela"):
        compile_file(tmp_path / "bad.tflite", tmp_path / "out.tflite", "ethos-u55-128")
    assert not (tmp_path / "out.tflite").exists()
    with pytest.raises(InputError, match=r"^Vela"):
        compile_file(
            shared_data / TINY / "anomaly_detection/trained_models/ad01_int8.tflite",
            tmp_path / "out.tflite",
            "abacus",
        )


def test_vela_compiles_what_we_write(small, tmp_path, tool):
    tool("vela")
    toolchain = next(t for t in targets.get("cortex-m-ethos-u").toolchains if t.compiler == "vela")
    made = compilers.get("vela").compile(small, toolchain, tmp_path)
    assert made.runs is not None, "a stand-in runs the file before Vela"
    assert made.runs.is_file()
    assert made.path != made.runs
    assert any("CONV_2D" in note for note in made.notes), "a float network"
    assert set(made.options["estimate"]) == {"inference_ms", "memory_bytes", "flash_bytes"}
