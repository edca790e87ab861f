"""The TensorRT engine, against stand-ins that record calls and compute in ONNX Runtime; for real where it is."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farrier_agent import engines
from farrier_agent.engines.tensorrt import cuda, trtexec
from farrier_agent.engines.tensorrt.library import Library, numbers
from farrier_agent.engines.tensorrt.plans import Identity, Plans
from farrier_agent.runtime import Runtime
from farrier_contracts.engine_build import EngineBuild, Profile
from farrier_contracts.errors import BundleError, FarrierError, MissingToolError
from farrier_contracts.tensors import TensorSpec
from farrier_contracts.wire.documents import WantedDeployment

HERE = Path(__file__).parent / "nvidia"
ROWS = Profile((1, 1, 8, 8), (4, 1, 8, 8), (16, 1, 8, 8))
RECIPE = EngineBuild(profiles={"x": ROWS}, precisions=("fp16", "int8"), workspace=64 << 20)


class Standin:
    """A machine with stand-ins for TensorRT and CUDA."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.log, self.kept = folder / "calls", folder / "kept"
        self._modules = folder / "modules"
        self._modules.mkdir()
        self.library = str(_cudart(folder))
        path = [str(self._modules), str(HERE), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        monkeypatch.setenv("STANDIN_LOG", str(self.log))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv(cuda.LIBRARY_VARIABLE, self.library)
        monkeypatch.syspath_prepend(str(HERE))
        monkeypatch.syspath_prepend(str(self._modules))
        self.install("tensorrt", "10.3.0")

    def install(self, kind: str, release: str) -> None:
        """Let these bindings, and no others, be importable."""
        self._patch.setenv("STANDIN_RELEASE", release)
        for old in ("tensorrt", "tensorrt_lean"):
            (self._modules / f"{old}.py").unlink(missing_ok=True)
            sys.modules.pop(old, None)
        shutil.rmtree(self._modules / "__pycache__", ignore_errors=True)
        for old in self._modules.glob("*.dist-info"):
            shutil.rmtree(old)
        metadata = self._modules / f"{kind}-{release}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {kind}\nVersion: {release}\n")
        builds = kind == "tensorrt"
        (self._modules / f"{kind}.py").write_text(
            f"import standin\nglobals().update(standin.contents(builds={builds}))\n"
        )

    def install_trtexec(self) -> None:
        """Put the stand-in on the PATH."""
        program = self.folder / "bin" / "trtexec"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "trtexec.py"} "$@"\n')
        program.chmod(0o755)
        self._patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    def fault(self, name: str) -> None:
        self._patch.setenv("STANDIN_FAULT", name)

    def calls(self, *names: str) -> list[list]:
        """Return the calls so far, or those with these names, and forget them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return [call for call in map(json.loads, lines) if not names or call[0] in names]

    @property
    def built(self) -> int:
        return len(self.calls("build_serialized_network", "trtexec"))

    def open(self, bundle) -> Runtime:
        return Runtime(bundle, kept_engines=self.kept)


def _cudart(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the CUDA runtime")
    library = folder / "libcudart.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "cudart.c"], check=True)
    return library


@pytest.fixture
def nvidia(tmp_path, monkeypatch):
    folder = tmp_path / "nvidia"
    folder.mkdir()
    yield Standin(folder, monkeypatch)
    for name in ("tensorrt", "tensorrt_lean", "standin"):
        sys.modules.pop(name, None)


@pytest.fixture
def conv_trt(make_bundle, conv_net):
    """Make a bundle of the convolution for TensorRT: conv_trt(recipe)."""

    def make(recipe=RECIPE, **more):
        x = np.random.default_rng(1).normal(size=(4, 1, 8, 8)).astype(np.float32)
        golden = {"in.x": x, **{f"out.{n}": a for n, a in conv_net.direct({"x": x}).items()}}
        document = recipe if isinstance(recipe, dict) else recipe.to_dict()
        options = {"engine": "tensorrt", "options": {"build": document}, "max_batch": 16}
        return make_bundle(
            conv_net.model,
            conv_net.inputs,
            conv_net.outputs,
            **{**options, "golden": golden, "cache": False, **more},
        )

    return make


@pytest.mark.parametrize("release", ["8.2.1.8", "8.5.2", "10.3.0"])
def test_it_builds_runs_and_gives_everything_back(nvidia, conv_trt, conv_net, inputs_of, release):
    nvidia.install("tensorrt", release)
    with nvidia.open(conv_trt()) as runtime:
        assert runtime.golden_cases == 4
        for seed, rows in ((3, 1), (4, 16), (5, 2)):
            inputs = inputs_of(seed, rows)
            got, want = runtime.infer(inputs), conv_net.direct(inputs)
            np.testing.assert_allclose(got["scores"], want["scores"], rtol=1e-5)
            np.testing.assert_array_equal(got["best"], want["best"])
            assert got["best"].dtype == np.int64  # the engines of releases before 10 have 32 bits
    assert ctypes.CDLL(nvidia.library).standin_live() == 0


def test_the_calls_of_a_build(nvidia, conv_trt):
    recipe = EngineBuild(
        profiles={"x": ROWS},
        precisions=("fp16", "int8"),
        sparse=True,
        dla_core=1,
        gpu_fallback=True,
        workspace=1 << 25,
    )
    nvidia.open(conv_trt(recipe)).close()
    calls = nvidia.calls()
    build = calls[: [name for name, *_ in calls].index("build_serialized_network") + 1]
    assert build == [
        ["Logger", 2],
        ["plugins", ""],
        ["create_network", 0],
        ["parse_from_file"],
        ["set_memory_pool_limit", "WORKSPACE", 1 << 25],
        ["set_flag", "FP16"],
        ["set_flag", "INT8"],
        ["set_flag", "SPARSE_WEIGHTS"],
        ["config.default_device_type", 2],
        ["config.DLA_core", 1],
        ["set_flag", "GPU_FALLBACK"],
        ["set_shape", "x", [1, 1, 8, 8], [4, 1, 8, 8], [16, 1, 8, 8]],
        ["set_timing_cache", "", False],
        ["build_serialized_network"],
    ]


@pytest.mark.parametrize(
    ("release", "recipe", "call"),
    [
        ("8.2.1", RECIPE, ["create_network", 1]),  # explicit batch
        ("8.2.1", RECIPE, ["config.max_workspace_size", 64 << 20]),
        ("10.3.0", EngineBuild(profiles={"x": ROWS}, strongly_typed=True), ["create_network", 2]),
        ("11.4.1", EngineBuild(profiles={"x": ROWS}, strongly_typed=True), ["create_network", 1]),
    ],
)
def test_releases_are_spoken_to_in_their_own_words(nvidia, conv_trt, release, recipe, call):
    nvidia.install("tensorrt", release)
    nvidia.open(conv_trt(recipe)).close()
    assert call in nvidia.calls()


@pytest.mark.parametrize(
    ("release", "recipe", "words"),
    [
        ("8.5.2", EngineBuild(profiles={"x": ROWS}, strongly_typed=True), "no strongly typed networks"),
        ("11.4.1", RECIPE, "types from the graph alone"),
        ("10.3.0", EngineBuild(profiles={"x": ROWS}, dla_core=2), "2 DLA cores, not number 2"),
    ],
)
def test_what_a_release_cannot_is_one_sentence(nvidia, conv_trt, release, recipe, words):
    nvidia.install("tensorrt", release)
    with pytest.raises(BundleError, match=words):
        nvidia.open(conv_trt(recipe))


def test_an_engine_is_built_once_for_a_graph_a_recipe_a_release_and_a_gpu(nvidia, conv_trt, monkeypatch):
    bundle = conv_trt()
    nvidia.open(bundle).close()
    assert nvidia.built == 1
    nvidia.open(bundle).close()
    assert nvidia.built == 0
    nvidia.open(conv_trt(EngineBuild(profiles={"x": ROWS}, precisions=("fp16",)))).close()
    assert nvidia.built == 1
    nvidia.install("tensorrt", "10.3.1")
    nvidia.open(bundle).close()
    assert nvidia.built == 1
    monkeypatch.setenv("STANDIN_GPU", "Xavier")
    nvidia.open(bundle).close()
    assert nvidia.built == 1
    nvidia.open(bundle).close()
    assert nvidia.built == 0
    assert sorted(path.suffix for path in nvidia.kept.iterdir()) == [".plan"] * 4 + [".timing"] * 3


def test_measured_kernels_are_kept_for_the_next_build(nvidia, conv_trt):
    nvidia.open(conv_trt()).close()
    nvidia.calls()
    nvidia.open(conv_trt(EngineBuild(profiles={"x": ROWS}))).close()
    assert ["set_timing_cache", "10.3.0 measured", False] in nvidia.calls()
    nvidia.open(conv_trt(EngineBuild(profiles={"x": ROWS}, sparse=True, timing_cache=False))).close()
    assert not nvidia.calls("set_timing_cache")


def test_a_timing_cache_of_another_release_is_not_used(nvidia, conv_trt):
    nvidia.open(conv_trt()).close()
    [timing] = nvidia.kept.glob("*.timing")
    timing.write_bytes(b"8.0 measured")
    nvidia.calls()
    nvidia.open(conv_trt(EngineBuild(profiles={"x": ROWS}))).close()
    assert [call[1] for call in nvidia.calls("set_timing_cache")] == ["8.0 measured", ""]


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign"])
def test_a_damaged_engine_is_built_again(nvidia, conv_trt, damage):
    bundle = conv_trt()
    nvidia.open(bundle).close()
    [plan] = nvidia.kept.glob("*.plan")
    content = plan.read_bytes()
    if damage == "foreign":  # whole, but no engine for this library
        nvidia_plan = b"not a plan"
        import hashlib

        plan.write_bytes(hashlib.sha256(nvidia_plan).digest() + nvidia_plan)
    else:
        plan.write_bytes(content[:-9] if damage == "cut" else content[:-9] + b"x" + content[-8:])
    nvidia.calls()
    nvidia.open(bundle).close()
    assert nvidia.built == 1
    assert plan.read_bytes() == content


@pytest.mark.parametrize(
    ("fault", "recipe", "words"),
    [
        ("refuse", RECIPE, "the graph is refused: No importer registered for op: Det$"),
        ("give-up", RECIPE, "the builder gave up"),
        ("crash", RECIPE, "ended with code -6|Aborted"),
        ("hang", EngineBuild(profiles={"x": ROWS}, limit_s=1.0), "longer than 1 s"),
        ("grow", EngineBuild(profiles={"x": ROWS}, memory=120 << 20), "more than 120 MiB"),
        ("chatter", RECIPE, "64 MiB of messages"),
    ],
)
def test_a_failed_build_is_one_sentence_and_leaves_nothing(nvidia, conv_trt, fault, recipe, words):
    nvidia.fault(fault)
    with pytest.raises(BundleError, match=words) as error:
        nvidia.open(conv_trt(recipe))
    assert "\n" not in str(error.value)
    assert not [path for path in nvidia.kept.iterdir() if path.suffix != ".timing"]
    nvidia.fault("")
    nvidia.open(conv_trt(replace(recipe, limit_s=600.0, memory=0))).close()


def test_a_build_that_is_killed_leaves_no_builder(nvidia, conv_trt, start_worker, eventually):
    nvidia.fault("hang")
    worker = start_worker(conv_trt())
    assert worker.event() == {"event": "building", "within_s": 1800.0}
    eventually(lambda: nvidia.log.exists() and "build_serialized_network" in nvidia.log.read_text())
    builders = [
        pid
        for pid in _processes("farrier_agent.engines.tensorrt.builder")
        if _parent(pid) == worker.process.pid
    ]
    assert len(builders) == 1
    worker.process.kill()
    worker.process.wait()
    eventually(lambda: not Path(f"/proc/{builders[0]}").exists() or _state(builders[0]) == "Z")


def _processes(word: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in (folder / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_worker_serves_what_it_built(nvidia, conv_trt, start_worker):
    worker = start_worker(conv_trt())
    assert worker.event()["event"] == "building"
    assert worker.event()["event"] == "ready"


def test_a_device_builds_what_the_fleet_wants_and_keeps_it(nvidia, world):
    recipe = EngineBuild(profiles={"x": Profile((1, 2), (1, 2), (4, 2))})
    world.publish("1", factor=3.0, engine="tensorrt", options={"build": recipe.to_dict()})
    world.agent.start()
    world.want(WantedDeployment("tripler", "scale", "1"))
    endpoint = world.phase("tripler", "1", "live")["endpoint"]
    assert world.ask(endpoint, "tripler", 5.0) == 15.0
    assert "an engine is built for this device" in world.agent.log
    kept = [path.suffix for path in (world.agent.folder / "state" / "engines").iterdir()]
    assert sorted(kept) == [".plan", ".timing"]
    assert "tensorrt" in world.collector.documents["birth"]["engines"]
    assert world.agent.stop() == 0
    nvidia.calls()
    world.agent.start()
    world.phase("tripler", "1", "live")
    assert nvidia.built == 0


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("10.3.0", ["--memPoolSize=workspace:64", "--skipInference"]),
        ("8.5.2", ["--memPoolSize=workspace:64", "--buildOnly"]),
        ("8.2.1", ["--workspace=64", "--buildOnly"]),
    ],
)
def test_bindings_that_cannot_build_leave_it_to_trtexec(
    nvidia, conv_trt, conv_net, inputs_of, release, words
):
    nvidia.install("tensorrt_lean", release)
    nvidia.install_trtexec()
    with nvidia.open(conv_trt()) as runtime:
        inputs = inputs_of(3, 5)
        np.testing.assert_allclose(
            runtime.infer(inputs)["scores"], conv_net.direct(inputs)["scores"], rtol=1e-5
        )
    [[_, onnx, plan, *rest]] = nvidia.calls("trtexec")
    assert onnx.startswith("--onnx=") and plan.startswith("--saveEngine=")
    assert rest[:2] == words
    assert rest[2:5] == ["--fp16", "--int8", "--versionCompatible"]
    assert rest[5].startswith("--timingCacheFile=")
    assert rest[6:] == ["--minShapes=x:1x1x8x8", "--optShapes=x:4x1x8x8", "--maxShapes=x:16x1x8x8"]


@pytest.mark.parametrize(
    ("kind", "release"), [("tensorrt", "8.5.2"), ("tensorrt_lean", "8.5.2"), ("tensorrt", "10.3.0")]
)
def test_stored_weights_reach_every_release_in_its_form(nvidia, make_bundle, stored_model, kind, release):
    import onnxruntime

    model = stored_model(np.arange(24, dtype=np.int8).reshape(6, 4), np.float32([1, 2, 3, 4]), axis=1)
    model = model.SerializeToString()
    specs = [TensorSpec("x", "FP32", (2, 6))], [TensorSpec("y", "FP32", (2, 4))]
    bundle = make_bundle(model, *specs, engine="tensorrt", options={"build": EngineBuild().to_dict()})
    nvidia.install(kind, release)
    if kind != "tensorrt":
        nvidia.install_trtexec()
    x = np.random.default_rng(2).normal(size=(2, 6)).astype(np.float32)
    with nvidia.open(bundle) as runtime:
        got = runtime.infer({"x": x})["y"]
    want = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    [plan] = nvidia.kept.glob("*.plan")
    assert (b"w/real" in plan.read_bytes()) == (release == "8.5.2")


def test_the_words_of_trtexec():
    library = Library(ctypes, "tensorrt_lean")  # any module: its version is asked for alone
    recipe = EngineBuild(profiles={"a:0": ROWS, "b": ROWS}, sparse=True, dla_core=0, gpu_fallback=True)
    found = trtexec.arguments(Path("g"), Path("p"), None, recipe, library)
    assert {"--sparsity=enable", "--useDLACore=0", "--allowGPUFallback"} <= set(found)
    assert "--maxShapes='a:0':16x1x8x8,b:16x1x8x8" in found
    with pytest.raises(BundleError, match="rename it"):
        trtexec.arguments(Path("g"), Path("p"), None, EngineBuild(profiles={"a'": ROWS}), library)


def test_trtexec_fails_in_one_sentence(nvidia, conv_trt):
    nvidia.install("tensorrt_lean", "10.3.0")
    nvidia.install_trtexec()
    nvidia.fault("give-up")
    with pytest.raises(BundleError, match="no implementation for node Conv_3"):
        nvidia.open(conv_trt())


def test_missing_libraries_are_one_sentence(nvidia, conv_trt, monkeypatch):
    bundle = conv_trt()
    nvidia.install("tensorrt_lean", "10.3.0")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolError, match="trtexec is not there"):
        nvidia.open(bundle)
    nvidia.install("tensorrt", "10.3.0")
    monkeypatch.setenv(cuda.LIBRARY_VARIABLE, "/nowhere/libcudart.so")
    with pytest.raises(MissingToolError, match="CUDA runtime, and /nowhere"):
        nvidia.open(bundle)


def test_without_bindings_it_is_one_sentence(conv_trt):
    if _is_real():
        pytest.skip("TensorRT is installed here")
    with pytest.raises(MissingToolError, match="python3-libnvinfer"):
        engines.load(conv_trt())


def test_a_gpu_without_memory_is_one_sentence(nvidia, conv_trt, monkeypatch):
    monkeypatch.setenv("STANDIN_NO_MEMORY", "1")
    with pytest.raises(FarrierError, match="cudaMalloc failed: out of memory"):
        nvidia.open(conv_trt())


def test_more_rows_than_the_recipe_has_take_several_turns(nvidia, conv_trt, conv_net, inputs_of):
    rows = EngineBuild(profiles={"x": Profile((1, 1, 8, 8), (1, 1, 8, 8), (2, 1, 8, 8))})
    inputs = inputs_of(1, 5)
    with nvidia.open(conv_trt(rows, max_batch=2)) as runtime:
        nvidia.calls()
        got = runtime.infer(inputs)
    assert [shape[0] for _, _, shape in nvidia.calls("set_input_shape")] == [2, 2, 1]
    np.testing.assert_allclose(got["scores"], conv_net.direct(inputs)["scores"], rtol=1e-5)


def test_a_shape_beyond_the_recipe_is_one_sentence(nvidia, conv_trt):
    narrow = EngineBuild(profiles={"x": Profile((2, 1, 8, 8), (2, 1, 8, 8), (2, 1, 8, 8))})
    with pytest.raises(FarrierError, match="not built for the shape"):
        nvidia.open(conv_trt(narrow, max_batch=2))


def test_a_manifest_that_names_other_tensors_is_one_sentence(nvidia, conv_trt):
    wrong = [TensorSpec("y", "FP32", (-1, 1, 8, 8))]
    bundle = conv_trt(EngineBuild(), golden=None)
    with pytest.raises(BundleError, match=r"disagree about '[xy]'"):
        nvidia.open(_renamed(bundle, wrong))
    assert ctypes.CDLL(nvidia.library).standin_live() == 0


def _renamed(bundle, inputs):
    return replace(bundle, manifest=replace(bundle.manifest, inputs=tuple(inputs)))


def test_a_bundle_without_a_recipe_is_built_for_its_batches(nvidia, make_bundle, conv_net, inputs_of):
    bundle = make_bundle(conv_net.model, conv_net.inputs, conv_net.outputs, engine="tensorrt", max_batch=8)
    with nvidia.open(bundle) as runtime:
        assert runtime.infer(inputs_of(1, 8))["scores"].shape == (8, 5)
    assert ["set_shape", "x", [1, 1, 8, 8], [1, 1, 8, 8], [8, 1, 8, 8]] in nvidia.calls()
    free = make_bundle(
        conv_net.model, [TensorSpec("x", "FP32", (-1, 1, 8, -1))], conv_net.outputs, engine="tensorrt"
    )
    with pytest.raises(BundleError, match="no build recipe"):
        nvidia.open(free)


@pytest.mark.parametrize("document", [{"workspace": -1}, {"profiles": [1]}, {"script": "rm -rf /"}])
def test_a_hostile_recipe_is_refused_before_anything_runs(nvidia, conv_trt, document):
    with pytest.raises(BundleError, match=r"again|update"):
        nvidia.open(conv_trt(document))
    assert not nvidia.calls()


def test_kept_engines_stay_within_their_bytes(tmp_path):
    def plans(number):
        return Plans(tmp_path, Identity(f"g{number}", "r", "l", "gpu"), most_bytes=1000)

    for number in range(6):
        plans(number).put(bytes([number]) * 300)
        os.utime(tmp_path / (Identity(f"g{number}", "r", "l", "gpu").key + ".plan"), (number, number))
    assert [plans(number).get() is not None for number in range(6)] == [False, False, False, True, True, True]
    assert plans(9).put(b"x" * 2000) == b"x" * 2000  # too large to keep, but not to use
    assert plans(9).get() is None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_what_a_killed_build_left_is_swept(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (tmp_path / f".build-{child.pid}-x").mkdir()
    (tmp_path / f".build-{os.getppid()}-y").mkdir()
    (tmp_path / ".build-odd").mkdir()
    with Plans(tmp_path, Identity("g", "r", "l", "gpu"), most_bytes=1000).making() as mine:
        assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / f".build-{os.getppid()}-y"])


def test_versions_are_numbers():
    assert numbers("8.5.2.2") == (8, 5, 2, 2)
    assert numbers("10.3.0.26+cuda12") == (10, 3, 0, 26)
    assert numbers("unknown") == ()


def _is_real() -> bool:
    try:
        import tensorrt  # noqa: F401

        cuda.Cuda().device()
    except (ImportError, FarrierError, cuda.CudaError):
        return False
    return True


@pytest.mark.skipif(not _is_real(), reason="no TensorRT with a GPU here")
def test_the_real_library_builds_and_runs(conv_trt, conv_net, inputs_of, tmp_path):
    bundle = conv_trt(EngineBuild(profiles={"x": ROWS}, precisions=("fp16",)), atol=2e-2)
    for _ in range(2):  # built, then kept
        with Runtime(bundle, kept_engines=tmp_path / "kept") as runtime:
            inputs = inputs_of(7, 8)
            got, want = runtime.infer(inputs)["scores"], conv_net.direct(inputs)["scores"]
            assert np.abs(got - want).max() < 2e-2
