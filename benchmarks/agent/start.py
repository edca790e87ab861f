"""How fast a device is back after a restart: connected to its broker, and answering its first request.

    python -m benchmarks.agent.start

A whole agent boots with one remembered deployment: from the start of the process to its birth message at a real
mosquitto, and to the answer of the first inference over HTTP, golden check and warm-up included. The bare process
imports ONNX Runtime, loads the same model and runs it once. All take turns; medians.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from ..figure import emit
from .scene import Births, Scene

ROUNDS = 11
GOAL_CONNECTED_S = 0.3
GOAL_RATIO = 3.0  # two processes, a verified bundle and a golden check, against one bare session


def main() -> None:
    times: dict[str, list[float]] = {
        "bare, first run": [],
        "agent, connected": [],
        "agent, first inference": [],
    }
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name))
        with scene.broker():
            births = Births(scene.broker_port)
            for _ in range(ROUNDS):
                start = time.perf_counter()
                with scene.bare():
                    times["bare, first run"].append(time.perf_counter() - start)
                start = time.perf_counter()
                with scene.agent():
                    scene.infer()
                    times["agent, first inference"].append(time.perf_counter() - start)
                    times["agent, connected"].append(births.wait() - start)
            births.close()
    medians = {what: statistics.median(values) for what, values in times.items()}
    for what, values in times.items():
        print(f"{what:24} {medians[what] * 1e3:6.0f} ms  min {min(values) * 1e3:6.0f} ms  n {len(values)}")
    ratio = medians["agent, first inference"] / medians["bare, first run"]
    emit("agent_first_inference_over_bare", ratio, goal=GOAL_RATIO, unit="x", at_most=True)
    emit(
        "agent_start_to_connected", medians["agent, connected"], goal=GOAL_CONNECTED_S, unit="s", at_most=True
    )


if __name__ == "__main__":
    main()
