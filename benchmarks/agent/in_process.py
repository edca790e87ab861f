"""What `farrier_agent.Runtime` adds to a model of about five milliseconds, against a bare ONNX Runtime session.

    python -m benchmarks.agent.in_process

Both run in this process on one thread, in turns; validation, batcher and statistics are on, the response cache is off
(its hits would flatter). The figure is the share that the median call grows by.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from farrier_agent import Runtime

from .. import networks
from ..figure import emit
from .worker import bundle_of

SIZE = 88  # pixels: about 5 ms
ROUNDS, CALLS = 40, 20
GOAL_SHARE = 0.01


def main() -> None:
    proto = networks.conv_net(size=SIZE)
    x = np.random.default_rng(1).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with tempfile.TemporaryDirectory() as folder, Runtime(bundle_of(proto, Path(folder))) as runtime:
        sides = {
            "session.run": lambda: session.run(None, {"x": x}),
            "Runtime.infer": lambda: runtime.infer({"x": x}),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        gc.disable()
        for side in sides.values():
            side()
        for _ in range(ROUNDS):
            for name, side in sides.items():
                for _ in range(CALLS):
                    start = time.perf_counter()
                    side()
                    times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:14} p50 {medians[name] * 1e3:.3f} ms  min {min(values) * 1e3:.3f} ms  n {len(values)}")
    emit(
        "agent_in_process_overhead",
        medians["Runtime.infer"] / medians["session.run"] - 1,
        goal=GOAL_SHARE,
        unit="share of a call",
        at_most=True,
    )


if __name__ == "__main__":
    main()
