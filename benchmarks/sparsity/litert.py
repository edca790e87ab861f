"""What sparse tensors do for a MobileNetV2 in LiteRT: bytes, time and answers, against the dense file.

    python -m benchmarks.sparsity.litert [--size 96]

Weights are random, zeros by magnitude per layer: bytes and time do not hang on what a network knows.
Paddings are 1 on each side, the form in which XNNPACK's sparse kernels apply where they are switched on (Arm; not on
x86 with AVX). One thread, both files in turn. The figure is the sparse file's time over the dense one's, at 90 %.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx

from farrier_contracts import targets
from farrier_converters import compilers, passes
from farrier_converters.graph.edit import attribute, set_attribute
from farrier_converters.measure import Child
from farrier_converters.model import Model, from_proto
from farrier_converters.passes.sparsify import SparsifyOptions, sparsify
from farrier_converters.sparsity.pack import packed

from .. import networks
from ..figure import emit

ROUNDS, CALLS = 40, 5
RATIOS = (0.5, 0.7, 0.8, 0.9)


def mobilenet(size: int) -> Model:
    proto = networks.mobilenet_v2(size)
    for node in proto.graph.node:
        if node.op_type == "Conv" and list(attribute(node, "kernel_shape")) == [3, 3]:
            kept = [field for field in node.attribute if field.name not in ("auto_pad", "pads")]
            del node.attribute[:]
            node.attribute.extend(kept)
            set_attribute(node, "pads", [1, 1, 1, 1])
    onnx.checker.check_model(proto)
    return from_proto(proto, "mobilenet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()
    target = targets.host()
    toolchain = next(t for t in target.toolchains if t.engine == "litert")
    source = mobilenet(arguments.size)
    feeds = {source.inputs[0].name: np.zeros((1, 3, arguments.size, arguments.size), np.float32)}
    feeds = {
        name: np.random.default_rng(0).standard_normal(v.shape).astype(v.dtype) for name, v in feeds.items()
    }
    share = 1.0
    for ratio in RATIOS:
        dense = sparsify(source, SparsifyOptions(ratio=ratio, scope="layer"), passes.Context()).model
        with tempfile.TemporaryDirectory() as folder:
            made = []
            for number, model in enumerate((dense, packed(dense))):
                (place := Path(folder) / str(number)).mkdir()
                made.append(compilers.get(toolchain.compiler).compile(model, toolchain, place))
            sizes = [compiled.path.stat().st_size for compiled in made]
            with (
                Child(made[0].path, "litert", options=made[0].options) as one,
                Child(made[1].path, "litert", options=made[1].options) as two,
            ):
                best = [np.inf, np.inf]
                for _ in range(ROUNDS):
                    for side, child in enumerate((one, two)):
                        best[side] = min(best[side], float(np.min(child.time(feeds, CALLS)[0])) / 1e6)
                answers = [next(iter(child.run(feeds).values())) for child in (one, two)]
        share = best[1] / best[0]
        print(
            f"{ratio:.0%}: dense {sizes[0]} bytes {best[0]:.2f} ms, sparse {sizes[1]} bytes {best[1]:.2f} ms, "
            f"largest difference {np.abs(answers[0] - answers[1]).max():.2g}",
            flush=True,
        )
    emit("sparsity_litert_sparse_over_dense_time", share, goal=1.1, unit="x", at_most=True)


if __name__ == "__main__":
    main()
