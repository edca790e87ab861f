"""The agent's engines for heavy runtimes, each in the environment that has it: a bundle, opened and asked there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import farrier_contracts
from farrier_contracts import bundle as bundles
from farrier_contracts import targets
from farrier_contracts.bundle import Artifact, Golden, Manifest
from farrier_converters import compilers, npz, tools

ASK = """
import sys
import numpy as np
from farrier_agent.runtime import Runtime

with np.load(sys.argv[2]) as file:
    feeds = {name: file[name] for name in file.files}
with Runtime(sys.argv[1]) as runtime:
    np.savez(sys.argv[3], cases=runtime.golden_cases, **runtime.infer(feeds))
"""
LIMIT_S = 120


@pytest.mark.parametrize("engine", ["openvino", "executorch", "iree"])
def test_a_bundle_answers_as_onnx_runtime_does(engine, tool, make_model, runtime_outputs, tmp_path):
    tool(engine)
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "d": rng.normal(size=(8, 5)).astype("f4"),
    }
    model = make_model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["g"]),
            helper.make_node("Flatten", ["g"], ["f"]),
            helper.make_node("MatMul", ["f", "d"], ["y"]),
        ],
        {"x": ["N", 3, 8, 8]},
        ["y"],
        constants=weights,
    )
    toolchain = next(t for t in targets.get("x86-avx2").toolchains if t.engine == engine)
    made = compilers.get(toolchain.compiler).compile(model, toolchain, tmp_path)
    feeds = {"x": rng.normal(size=(3, 3, 8, 8)).astype(np.float32)}
    wanted = runtime_outputs(model, feeds)["y"]
    golden = npz.to_bytes({"in.x": feeds["x"], "out.y": wanted})
    manifest = Manifest(
        name="model",
        version="1",
        inputs=model.inputs,
        outputs=model.outputs,
        artifacts=(Artifact("model", toolchain.format, engine, "fp32", "x86-avx2", made.options),),
        golden=Golden("golden.npz", {"y": 1e-3}),
    )
    bundle, asked, answered = tmp_path / "m.farrier", tmp_path / "x.npz", tmp_path / "y.npz"
    bundles.build(bundle, manifest, {"model": made.path, "golden.npz": golden})
    asked.write_bytes(npz.to_bytes(feeds))
    subprocess.run(
        [tools.python_of(engine), "-c", ASK, bundle, asked, answered],
        env={**os.environ, "PYTHONPATH": str(Path(farrier_contracts.__file__).parent.parent)},
        check=True,
        timeout=LIMIT_S,
    )
    with np.load(answered) as file:
        np.testing.assert_allclose(file["y"], wanted, rtol=1e-4, atol=1e-4)
        assert file["cases"] == len(wanted)
