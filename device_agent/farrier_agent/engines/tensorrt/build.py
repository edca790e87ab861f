"""Build an engine in a process of its own, with a limit on its time and memory: builders crash, hang and grow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from farrier_contracts.engine_build import EngineBuild
from farrier_contracts.errors import BundleError
from farrier_contracts.files import write_atomically

from . import library, trtexec
from .library import Library

MODULE = "farrier_agent.engines.tensorrt.builder"
POLL_S = 0.05
REASON_MAX = 300  # characters of a builder's last words
TIMING_MAX_BYTES = 64 << 20
LOG_MAX_BYTES = 64 << 20
GRAPH_FILE, PLAN_FILE, TIMING_FILE, LOG_FILE = "graph.onnx", "engine.plan", "kernels.timing", "log"


@dataclass(frozen=True)
class Job:
    """What is to be built."""

    graph: Path
    recipe: EngineBuild
    library: Library


def build(job: Job, scratch: Path, timing: Optional[Path]) -> bytes:
    """Return the engine; `scratch` is an empty folder, `timing` the file that keeps measured kernels.

    Raises BundleError with the builder's own last words, MissingToolError where nothing here builds engines.
    """
    copy = scratch / TIMING_FILE
    if job.recipe.timing_cache and timing is not None and timing.exists():
        shutil.copyfile(timing, copy)  # the builder writes its own copy: a killed one leaves the old whole
    command = _command(job, scratch)
    with (scratch / LOG_FILE).open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            ending = _watch(process, job.recipe, scratch / LOG_FILE)
        finally:
            _end(process)
    plan = _read(scratch / PLAN_FILE)
    if ending or process.returncode or not plan:
        why = ending or _last_words(scratch / LOG_FILE) or f"the builder ended with code {process.returncode}"
        raise BundleError(f"TensorRT {job.library.version} built no engine: {why}")
    if job.recipe.timing_cache and timing is not None:
        _keep_timing(copy, timing)
    return plan


def _command(job: Job, scratch: Path) -> list[str]:
    """Return the command, tied to this process: a worker that is killed leaves no builder behind."""
    graph, plan, timing = (scratch / name for name in (GRAPH_FILE, PLAN_FILE, TIMING_FILE))
    kept = timing if job.recipe.timing_cache else None
    program = []
    if not job.library.builds:
        own = trtexec.arguments(graph, plan, kept, job.recipe, job.library)
        program = [library.trtexec(), *own]
    order = {
        "source": str(job.graph),
        "graph": str(graph),
        "plan": str(plan),
        "timing": str(kept) if kept else None,
        "recipe": job.recipe.to_dict(),
        "release": job.library.version,
        "program": program,
    }
    tether = [sys.executable, "-m", "farrier_agent.tether", str(os.getpid()), MODULE]
    return [*tether, json.dumps(order)]


def _watch(process: subprocess.Popen[bytes], recipe: EngineBuild, log: Path) -> str:
    """Wait for the end; return why it was not waited for, "" where it was."""
    end = time.monotonic() + recipe.limit_s
    while process.poll() is None:
        if time.monotonic() > end:
            return f"it took longer than {recipe.limit_s:g} s"
        if recipe.memory and _resident_bytes(process.pid) > recipe.memory:
            return f"it took more than {recipe.memory >> 20} MiB of memory"
        if log.stat().st_size > LOG_MAX_BYTES:
            return f"it wrote more than {LOG_MAX_BYTES >> 20} MiB of messages"
        time.sleep(POLL_S)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the builder with all that it started."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
    process.wait()


def _resident_bytes(pid: int) -> int:
    """Return what a process holds in memory; address space says nothing, since CUDA reserves all there is."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _last_words(log: Path) -> str:
    """Return the line that says why, among the last that a builder wrote."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (64 << 10)))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line or "error" in line.lower()]
    return (errors or lines or [""])[-1][:REASON_MAX]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _keep_timing(copy: Path, timing: Path) -> None:
    content = _read(copy)
    if 0 < len(content) <= TIMING_MAX_BYTES:
        write_atomically(timing, [content], mode=0o600)
