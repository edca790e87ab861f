"""Peak memory of a calibration over many rows against few, beside ONNX Runtime's calibraters.

    python -m benchmarks.quantization.calibration_memory [--shared-data ../shared/data] [--rows 16,1024]
                                                         [--only resnet20]

Each measurement is a child process of its own that reads an .npz file and quantizes a network with it, one row per
run: Farrier as `farrier optimize --calib` reads it, and ONNX Runtime's quantize_static with MinMax, Entropy and
Percentile. The peak is the largest resident set (VmHWM). ONNX Runtime's Entropy and Percentile keep every
tensor of every row: they get at most --peer-rows rows, and each child at most --limit-gb. The figure is Farrier's
worst ratio of the most rows to the fewest.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from .. import networks
from ..figure import emit

ROOT = Path(__file__).resolve().parents[2]
GOAL = 1.05
PEERS = ("MinMax", "Entropy", "Percentile")


def farrier(path: Path, rows: Path, out: Path) -> None:
    from farrier_contracts.targets import Arithmetic
    from farrier_converters import data, model, passes

    source = model.load(path)
    loaded = data.load(rows, source.inputs)
    context = passes.Context(Arithmetic("u8"), lambda: (feeds for feeds, _ in loaded.batches(1)))
    for name in ("clean", "fuse", "int8"):
        technique = passes.get(name)
        source = technique.run(source, technique.options(), context)
    model.save(source, out)


def peer(path: Path, rows: Path, out: Path, method: str) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            with np.load(rows) as found:
                (self.name,) = found.files
                self.left = iter(found[self.name])

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            row = next(self.left, None)
            return None if row is None else {self.name: row[None]}

    quantize_static(
        str(path),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        calibrate_method=CalibrationMethod[method],
    )


def child(arguments: list[str]) -> None:
    """Quantize in this process, and print its peak in MiB."""
    way, limit, *paths = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    model, rows, out = map(Path, paths)
    if way == "farrier":
        farrier(model, rows, out)
    else:
        peer(model, rows, out, way)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count what the parent had at the fork
    print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024)


def peak(way: str, model: Path, rows: Path, folder: Path, limit: int) -> float | None:
    """Return the peak of one way in MiB; None where it failed or outgrew the limit."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.quantization.calibration_memory",
        "--child",
        way,
        str(limit),
        str(model),
        str(rows),
        str(folder / "q.onnx"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def models(data: Path, folder: Path) -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("resnet20", ROOT / "examples" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = {}
    checkpoint = data / "resnet_cifar10_pth" / "pretrained_models" / "resnet20-12fca82f.th"
    if checkpoint.exists():
        found["resnet20"] = folder / "resnet20.onnx"
        onnx.save(script.build(script.read_checkpoint(checkpoint)), found["resnet20"])
    ultraface = data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx"
    if ultraface.exists():
        found["ultraface"] = ultraface
    found["mobilenet-v2"] = folder / "mobilenet.onnx"
    onnx.save(networks.mobilenet_v2(), found["mobilenet-v2"])
    return found


def write_rows(model: Path, path: Path, count: int) -> None:
    """Write seeded standard normal rows; memory and time depend on shapes alone."""
    proto = onnx.load(model)
    constants = {t.name for t in proto.graph.initializer}
    (spec,) = [i for i in proto.graph.input if i.name not in constants]
    shape = [d.dim_value for d in spec.type.tensor_type.shape.dim][1:]
    rng = np.random.default_rng(0)
    np.savez(path, **{spec.name: rng.standard_normal((count, *shape), dtype=np.float32)})  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rows", default="16,1024")
    parser.add_argument("--only", default="resnet20,ultraface,mobilenet-v2")
    parser.add_argument("--peer-rows", type=int, default=128)
    parser.add_argument("--limit-gb", type=float, default=8)
    arguments = parser.parse_args()
    counts = sorted(int(c) for c in arguments.rows.split(","))
    limit = int(arguments.limit_gb * (1 << 30))
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, model in models(arguments.shared_data, folder).items():
            if label not in arguments.only.split(","):
                continue
            found: dict[tuple[str, int], float | None] = {}
            for count in counts:
                rows = folder / "rows.npz"
                write_rows(model, rows, count)
                for way in ("farrier", *(PEERS if count <= arguments.peer_rows else ("MinMax",))):
                    found[way, count] = peak(way, model, rows, folder, limit)
                    value = found[way, count]
                    text = (
                        f"{value:8.1f} MiB"
                        if value is not None
                        else f"failed, or over {arguments.limit_gb} GB"
                    )
                    print(f"{label:14} {count:5} rows  {way:11} {text}", flush=True)
            few, many = found["farrier", counts[0]], found["farrier", counts[-1]]
            assert few is not None
            assert many is not None
            ratios.append(many / few)
    emit("calibration_memory", max(ratios), goal=GOAL, unit="x peak RSS", at_most=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
