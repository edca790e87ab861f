"""`farrier-agent infer` and `farrier-agent check`: one bundle, once, in a child process that it may abort."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Optional

from farrier_contracts.errors import BundleError, FarrierError

CHILD_LIMIT_S = 600.0
ANSWERS = ("labels", "target")  # what evaluation data holds besides inputs
SHOWN_VALUES = 16  # outputs of up to so many values are given in the summary


def infer(bundle: Path, input: Path, output: Optional[Path] = None) -> Dict[str, Any]:
    """Run the bundle on the arrays of an .npz file and return a summary of the outputs.

    They go to `output`, an .npz too, whole or not at all. The summary: `outputs` (name, datatype, shape, and `data`
    where it is short) and `duration_ms`. Raises InputError, BundleError, MissingToolError, FarrierError.
    """
    return _in_child("infer", str(bundle), str(input), str(output) if output else "")


def check(bundle: Path) -> Dict[str, Any]:
    """Verify a bundle file, its fitness for this device and its golden vectors.

    Returns `name`, `version`, `digest`, `engine`, `golden` (cases that agreed) and `load_ms`; raises as `infer` does.
    """
    return _in_child("check", str(bundle))


def _in_child(*arguments: str) -> Dict[str, Any]:
    command = [sys.executable, "-m", "farrier_agent.infer", *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=CHILD_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise FarrierError(f"the model did not finish within {CHILD_LIMIT_S:g} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BundleError(
            f"the model file ended its engine with {name}: it is damaged, or not for this engine"
        )
    try:
        result = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise FarrierError(f"the engine's process ended with code {done.returncode} and no answer") from None
    if "error" in result:
        error = FarrierError(result["error"])
        error.exit_code = result["exit_code"]
        raise error
    return result


def _check(bundle: str) -> Dict[str, Any]:
    from .runtime import Runtime, RuntimeSettings

    start = time.monotonic()
    with Runtime(bundle, settings=RuntimeSettings(cache_bytes=0)) as runtime:
        manifest = runtime.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "engine": manifest.artifacts[0].engine,
            "golden": runtime.golden_cases,
            "load_ms": round((time.monotonic() - start) * 1e3, 3),
        }


def _infer(bundle: str, input: str, output: str) -> Dict[str, Any]:
    from farrier_contracts.tensors import DATATYPES

    from .arrays import read_npz
    from .runtime import Runtime, RuntimeSettings

    arrays = read_npz(Path(input))
    with Runtime(bundle, settings=RuntimeSettings(cache_bytes=0)) as runtime:
        known = {spec.name for spec in runtime.manifest.inputs}
        inputs = {name: a for name, a in arrays.items() if name in known or name not in ANSWERS}
        start = time.monotonic()
        outputs = runtime.infer(inputs)
        elapsed_ms = round((time.monotonic() - start) * 1e3, 3)
    if output:
        _write_npz(Path(output), outputs)
    described = []
    for name, array in outputs.items():
        entry = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
        if array.size <= SHOWN_VALUES:
            entry["data"] = array.tolist()
        described.append(entry)
    return {"outputs": described, "duration_ms": elapsed_ms}


def _write_npz(path: Path, arrays: Dict[str, Any]) -> None:
    import numpy as np

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    except OSError as error:
        raise FarrierError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _main(what: str, *arguments: str) -> None:
    try:
        result = {"check": _check, "infer": _infer}[what](*arguments)
    except FarrierError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
