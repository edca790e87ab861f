"""Bytes and time of a sparse network: dense file, packed zeros, ONNX's sparse initializers; plain and after zstd.

    python -m benchmarks.sparsity.sizes [--shared-data ../shared/data] [--network resnet56]

Zeros are chosen by magnitude over the whole network, in one shot: bytes and time do not hang on what the network still
knows. Times are the least of many runs on one thread of ONNX Runtime, in rounds that take each form once. `zstd -19` is
used where it is installed. The figure is how many times smaller the packed file is at 90 % than the dense one, INT8.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.model import Model
from farrier_converters.passes.sparsify import SparsifyOptions, sparsify
from farrier_converters.sparsity.pack import packed, with_sparse_initializers

from ..cifar import ROOT, TARGET, pictures, resnet
from ..figure import emit

FORMS: dict[str, Callable[[Model], Model]] = {
    "dense": lambda model: model,
    "packed": packed,
    "sparse initializers": with_sparse_initializers,
}
RATIOS = (0.0, 0.5, 0.8, 0.9, 0.95)
ROUNDS = 150


def zipped(content: bytes) -> int | None:
    tool = shutil.which("zstd")
    if tool is None:
        return None
    done = subprocess.run([tool, "-19", "-c"], input=content, capture_output=True, check=True)
    return len(done.stdout)


def times(models: list[Model], feeds: dict[str, np.ndarray]) -> list[float]:
    """The least milliseconds of each."""
    sessions = [run.session(model.proto) for model in models]
    best = [np.inf] * len(models)
    for _ in range(ROUNDS):
        for number, session in enumerate(sessions):
            started = time.perf_counter()
            session.run(None, feeds)
            best[number] = min(best[number], time.perf_counter() - started)
    return [1000 * seconds for seconds in best]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--network", default="resnet56", choices=("resnet20", "resnet56"))
    arguments = parser.parse_args()
    images = pictures(arguments.shared_data)[0]
    context = passes.Context(TARGET, lambda: ({"images": images[i : i + 64]} for i in range(0, 256, 64)))
    source = resnet(arguments.shared_data, arguments.network)
    for name in ("clean", "fuse"):
        source = passes.get(name).run(source, passes.get(name).options(), context)
    found: dict[tuple[str, float, str], int] = {}
    print("precision, zeros, form: bytes, bytes after zstd, ms")
    for precision in ("float32", "int8"):
        for ratio in RATIOS:
            model = sparsify(source, SparsifyOptions(ratio=ratio), context).model
            if precision == "int8":
                for name in ("int8", "shrink"):
                    model = passes.get(name).run(model, passes.get(name).options(), context)
            made = {form: store(model) for form, store in FORMS.items()}
            spent = times(list(made.values()), {"images": images[:1]})
            for (form, stored), ms in zip(made.items(), spent, strict=True):
                content = stored.proto.SerializeToString(deterministic=True)
                found[precision, ratio, form] = len(content)
                print(
                    f"{precision}, {ratio:.0%}, {form}: {len(content)}, {zipped(content)}, {ms:.2f}",
                    flush=True,
                )
    gain = found["int8", 0.0, "dense"] / found["int8", 0.9, "packed"]
    emit("sparsity_packed_int8_times_smaller", gain, goal=3.0, unit="x")


if __name__ == "__main__":
    main()
