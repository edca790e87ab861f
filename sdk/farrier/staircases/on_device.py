"""Time networks in the agent's own engine. Sent to a device with `turns.py`, and run there by the agent's Python (3.9).

`python on_device.py PLAN`: the plan of `timing_plan`, with paths beside it and each artifact's inputs and outputs. One
line of JSON per message on stdout, {"share": 0..1} while it works; at the end {"ns": [...], "engine": "..."} or
{"error": "..."}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, TextIO, Type

import numpy as np

from farrier_agent.engines import Engine, EngineSettings, find
from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.tensors import NUMPY_NAMES, TensorSpec


def ready(item: Dict[str, Any], engine: Type[Engine], settings: EngineSettings) -> Callable[[], object]:
    """Return a function that runs one artifact on noise."""
    inputs, outputs = (tuple(TensorSpec.from_dict(d) for d in item[side]) for side in ("inputs", "outputs"))
    path = Path(item["path"])
    artifact = Artifact(path.name, path.suffix[1:], "", "", "", item["options"])
    manifest = Manifest("network", "0", inputs, outputs, (artifact,))
    loaded = engine.load(path, manifest, artifact, settings)
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.standard_normal([max(size, 1) for size in spec.shape]).astype(
            NUMPY_NAMES[spec.datatype]
        )
        for spec in inputs
    }
    return lambda: loaded.run(feeds)


def main(sink: TextIO) -> None:
    """Carry out the plan."""

    def say(message: Dict[str, Any]) -> None:
        print(json.dumps(message), file=sink, flush=True)

    try:
        from turns import shortest  # type: ignore[import-not-found]  # lies beside this file there

        plan = json.loads(Path(sys.argv[1]).read_text())
        engine, settings = find(plan["engine"]), EngineSettings(threads=plan["threads"])
        runs = [ready(item, engine, settings) for item in plan["artifacts"]]
        found = shortest(runs, plan=plan, tell=lambda share: say({"share": float(share)}))
        say({"ns": found, "engine": engine.version()})
    except BrokenPipeError:
        raise
    except Exception as error:
        say({"error": next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)})


if __name__ == "__main__":
    # engines print: their words go to stderr, so that only messages travel on the pipe
    messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(messages)
