from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier import bundle
from farrier.cli import main
from farrier_contracts.bundle import StoredBundle, unpack
from farrier_contracts.errors import InputError, UsageError

Make = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network with a free batch axis and fixed random weights."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((4, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    path = tmp_path / "a model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32))
    return path


@pytest.fixture
def make(tmp_path: Path, model: Path) -> Make:
    def made(version: str, golden: Path | None = None, **settings: object) -> Path:
        output = tmp_path / f"{version}.farrier"
        options = replace(bundle.BuildSettings(), **settings)
        bundle.build(
            model,
            name="small",
            version=version,
            target="x86-avx2",
            output=output,
            golden=golden,
            settings=options,
        )
        return output

    return made


def test_a_bundle_says_what_the_model_and_the_target_are(make: Make) -> None:
    path = make("1", max_batch=8, cache_responses=False, licence="MIT")
    manifest = bundle.verify(path)
    assert [t.to_dict() for t in manifest.inputs] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert [t.to_dict() for t in manifest.outputs] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
    (artifact,) = manifest.artifacts
    assert (artifact.engine, artifact.precision, artifact.target) == ("onnxruntime", "fp32", "x86-avx2")
    assert manifest.compatibility.arch == ("x86_64",)
    assert manifest.compatibility.memory_bytes > 0
    assert (manifest.batching.max_batch, manifest.cache.responses, manifest.licence) == (8, False, "MIT")


def test_golden_outputs_are_what_the_engine_gives(
    make: Make, model: Path, rows: Path, tmp_path: Path
) -> None:
    stored: StoredBundle = unpack(make("1", rows), tmp_path / "store")
    assert stored.manifest.golden is not None
    with np.load(stored.part(stored.manifest.golden.part), allow_pickle=False) as golden:
        inputs, outputs = golden["in.x"], golden["out.y"]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    with np.load(rows) as given:
        np.testing.assert_array_equal(inputs, given["x"][: len(inputs)])
    (expected,) = session.run(None, {"x": inputs})
    atol = stored.manifest.golden.atol["y"]
    assert 0 < atol < 1e-3
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=atol)
    with np.load(io.BytesIO(stored.part("warmup.npz").read_bytes())) as warmup:
        assert warmup["in.x"].shape == (1, 4)


def test_diff_tells_what_changed_and_what_an_update_ships(make: Make, rows: Path) -> None:
    one, two = make("1"), make("2", rows)
    difference = bundle.diff(one, two)
    assert difference.added == ("golden.npz", "warmup.npz")
    assert (difference.removed, difference.changed) == ((), ())
    assert {"version", "warmup"} <= set(difference.fields)
    manifest = bundle.verify(two)
    shipped = sum(manifest.parts[name].size for name in difference.added) + len(manifest.to_bytes())
    assert difference.ship_bytes == shipped
    back = bundle.diff(two, one)
    assert back.removed == difference.added
    same = bundle.diff(one, one)
    assert same.is_empty
    assert same.ship_bytes == 0


def test_the_commands(
    make: Make, model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "o.farrier"
    arguments = ["bundle", "build", str(model), "--name", "small", "--version", "9", "--target", "x86-avx2"]
    assert main([*arguments, "--golden", str(rows), "-o", str(output), "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert main(["bundle", "inspect", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["digest"], document["bytes"]) == (built["digest"], output.stat().st_size)
    assert main(["bundle", "inspect", str(output)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("small 9", built["digest"], "x: FP32 [any x 4]", "golden.npz"))
    assert main(["bundle", "verify", str(output)]) == 0
    assert "is whole" in capsys.readouterr().out
    assert main(["bundle", "diff", str(output), str(make("1"))]) == 0
    assert "to ship" in capsys.readouterr().out


def test_verify_names_the_damaged_part(make: Make, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make("1", rows)
    data = bytearray(path.read_bytes())
    data[data.index(b"out.y.npy") + 200] ^= 1
    path.write_bytes(data)
    assert main(["bundle", "verify", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "'golden.npz' is damaged" in err
    assert err.count("\n") == 1


def test_wrong_input_is_one_sentence_and_writes_nothing(model: Path, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.farrier"

    def build(artifact: Path = model, golden: Path | None = None, **changes: str) -> None:
        names = {"name": "small", "version": "1", "target": "x86-avx2"} | changes
        bundle.build(artifact, output=output, golden=golden, **names)

    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:-20])
    other = tmp_path / "other.npz"
    np.savez(other, z=np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match="bundle name"):
        build(name="Not Legal")
    with pytest.raises(InputError, match="a version"):
        build(version="../1")
    with pytest.raises(UsageError, match="unknown target"):
        build(target="toaster")
    with pytest.raises(InputError, match=r"cut\.onnx"):
        build(cut)
    with pytest.raises(InputError, match=r"absent\.onnx"):
        build(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match="no known artifact format"):
        build(rows)
    with pytest.raises(InputError, match=r"other\.npz does not fit"):
        build(golden=other)
    assert not output.exists()
    assert not list(tmp_path.glob(".*"))


def test_weights_in_other_files_are_refused(model: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.onnx"
    onnx.save(onnx.load(model), split, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(InputError, match="save it as one file"):
        bundle.build(split, name="small", version="1", target="x86-avx2", output=tmp_path / "o.farrier")


def test_a_model_that_the_engine_cannot_run_is_refused(model: Path, tmp_path: Path) -> None:
    """A Reshape to a shape that no row has: valid as a graph, wrong when run."""
    proto = onnx.load(model)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([7, 11], np.int64), "shape"))
    proto.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["z"]))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [7, 11]))
    path, rows = tmp_path / "wrong.onnx", tmp_path / "one.npz"
    onnx.save(proto, path)
    np.savez(rows, x=np.zeros((1, 4), np.float32))
    with pytest.raises(InputError, match=r"wrong\.onnx does not run"):
        bundle.build(
            path, name="small", version="1", target="x86-avx2", output=tmp_path / "o.farrier", golden=rows
        )
    assert not (tmp_path / "o.farrier").exists()
