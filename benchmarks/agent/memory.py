"""What the agent costs in memory: a worker against a bare process with the same session, and the supervisor.

    python -m benchmarks.agent.memory

Proportional set size (PSS) of each process after one inference, all alive at the same time; medians over rounds.
The supervisor is connected to a real mosquitto.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from ..figure import emit
from .scene import Births, Scene, children, pss_mb

ROUNDS = 7
GOAL_SUPERVISOR_MB = 24
GOAL_RATIO = 1.2


def main() -> None:
    found: dict[str, list[float]] = {"bare": [], "worker": [], "supervisor": []}
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name))
        with scene.broker():
            births = Births(scene.broker_port)
            for _ in range(ROUNDS):
                with scene.bare() as bare, scene.agent() as supervisor:
                    scene.infer()
                    births.wait()
                    (worker,) = children(supervisor)
                    for what, pid in zip(found, (bare, worker, supervisor), strict=True):
                        found[what].append(pss_mb(pid))
            births.close()
    medians = {what: statistics.median(values) for what, values in found.items()}
    for what, values in found.items():
        print(f"{what:10} {medians[what]:6.1f} MiB  min {min(values):6.1f} MiB  n {len(values)}")
    emit(
        "agent_supervisor_memory",
        medians["supervisor"],
        goal=GOAL_SUPERVISOR_MB,
        unit="MiB PSS",
        at_most=True,
    )
    ratio = medians["worker"] / medians["bare"]
    emit("agent_worker_memory_over_bare", ratio, goal=GOAL_RATIO, unit="x PSS", at_most=True)


if __name__ == "__main__":
    main()
