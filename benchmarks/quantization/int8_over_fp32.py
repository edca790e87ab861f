"""How much faster INT8 is than float in ONNX Runtime on this processor, and what it costs in size.

    python -m benchmarks.quantization.int8_over_fp32 [--shared-data ../shared/data]

Convolution nets at batch 1 and 8, one thread, float (graph-optimised) and INT8 processes timed in turns. ResNet20 and
UltraFace come from the shared data, the digits network from the demo, the others have random weights; what is absent is
left out and said. Calibration rows are random: this is about time, not accuracy. The figure is the geometric mean of
the speed-ups.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx

from farrier_contracts import targets
from farrier_converters import measure, model, passes

from .. import networks
from ..figure import emit

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (1, 8)
GOAL = 2.0


def resnet20(data: Path, folder: Path) -> Path:
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkpoint = data / "resnet_cifar10_pth" / "pretrained_models" / "resnet20-12fca82f.th"
    path = folder / "resnet20.onnx"
    onnx.save(module.build(module.read_checkpoint(checkpoint)), path)
    return path


def made(name: str, build: Callable[[], onnx.ModelProto]) -> Callable[[Path, Path], Path]:
    def write(_data: Path, folder: Path) -> Path:
        path = folder / f"{name}.onnx"
        onnx.save(build(), path)
        return path

    return write


SUBJECTS: dict[str, Callable[[Path, Path], Path]] = {
    "digits": lambda _data, _folder: ROOT / "sdk" / "farrier" / "showcase" / "assets" / "digits.onnx",
    "conv-net": made("conv-net", networks.conv_net),
    "vgg": made("vgg", networks.vgg),
    "u-net": made("u-net", networks.u_net),
    "resnet56": made("resnet56", networks.resnet56),
    "mobilenet-v2": made("mobilenet-v2", networks.mobilenet_v2),
    "ds-cnn": made("ds-cnn", networks.ds_cnn),
    "resnet20": resnet20,
    "ultraface": lambda data, _folder: data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx",
}


def rows(source: model.Model, batch: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {t.name: [batch if i == 0 else d for i, d in enumerate(t.shape)] for t in source.inputs}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def speedups(path: Path, folder: Path) -> Iterator[tuple[int, float, float]]:
    """Yield (batch, speed-up, size ratio); a model with a fixed batch of 1 is timed at that alone."""
    source = model.load(path)
    arithmetic = targets.host().toolchains[0].arithmetic
    context = passes.Context(arithmetic, lambda: (rows(source, 1, seed) for seed in range(16)))
    paths = {}
    steps: dict[str, dict[str, dict[str, bool]]] = {
        "fp32": {"clean": {}, "fuse": {}},
        "int8": {"clean": {}, "fuse": {}, "int8": {"fit": True}, "shrink": {}},
    }
    for name, options in steps.items():
        graph = source
        for step, values in options.items():
            technique = passes.get(step)
            graph = technique.run(graph, technique.options(**values), context)
        paths[name] = folder / f"{path.stem}-{name}.onnx"
        model.save(graph, paths[name])
    free = all(tensor.shape[0] == -1 for tensor in source.inputs)
    for batch in BATCHES if free else (1,):
        with ExitStack() as stack:
            children = {n: stack.enter_context(measure.Child(p, "onnxruntime")) for n, p in paths.items()}
            found = measure.measure(children, rows(source, batch, 99), batch=batch)
        times = {}
        for name, latency in found.items():
            if isinstance(latency, measure.EngineFailure):
                raise SystemExit(f"{path.name} {name}: {latency}")
            times[name] = latency.p50_ms
        print(f"{path.stem:18} batch {batch}  fp32 {times['fp32']:8.3f} ms  int8 {times['int8']:8.3f} ms")
        yield (
            batch,
            times["fp32"] / times["int8"],
            paths["fp32"].stat().st_size / paths["int8"].stat().st_size,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    data = arguments.parse_args().shared_data
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        for subject, find in SUBJECTS.items():
            try:
                path = find(data, Path(name))
            except FileNotFoundError:
                path = Path("absent")
            if not path.exists():
                print(f"{subject:18} left out: not in {data}")
                continue
            for batch, speed, size in speedups(path, Path(name)):
                print(f"{subject:18} batch {batch}  {speed:.2f}x as fast, {size:.2f}x smaller")
                ratios.append(speed)
    print(f"target arithmetic: {targets.host().name}")
    emit("int8_over_fp32", float(np.exp(np.mean(np.log(ratios)))), goal=GOAL, unit="x speed")


if __name__ == "__main__":
    main()
