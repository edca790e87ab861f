"""Measure a staircase: build the small networks, let them take turns, and read off the curves.

Where they take turns is the caller's to say (`Bench`); `here` is this machine.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts import targets
from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.targets import Target, Toolchain

from ... import compilers, passes
from ...compilers import Compiled
from ...compilers.tflite import lower_model
from ...graph.compact.shrink import shrink
from ...measure import engines
from ...model import Model, save
from ...tflite.write import write
from ...tools.process import end, module_command, obituary
from .families import WIDTHS, Family, families
from .machine import machine
from .table import Curve, Staircase

TIMER = "farrier_converters.pruning.staircase.timer"
PRECISIONS = ("fp32", "int8")
CALIBRATION_ROWS = 2  # of noise: the networks are timed, never asked anything
# quick ways to integers: what they compute is as fast as with the slow ones
_INT8 = {"method": "minmax", "bias_correction": False, "even": False, "store_rest": False}


@dataclass(frozen=True)
class MeasureSettings:
    """How long is measured. Each network's time is the shortest of all its calls."""

    rounds: int = 10  # at least, in which the networks of a family take turns
    most_rounds: int = 60
    settled_rounds: int = 4  # in a row that bring nothing new, before it ends
    settled_by: float = 0.01  # of a time: less than that is nothing new
    still_share: float = 0.01  # of the networks may still get faster
    round_ns: int = 400_000  # that a network gets in each round
    min_calls: int = 4  # in one round
    max_calls: int = 20
    limit_s: float = 900.0  # of one family
    widths: tuple[int, ...] = WIDTHS


# carries out a plan of `timing_plan` and returns the nanoseconds of its artifacts, and the engine's version
Timer = Callable[[Mapping[str, Any], Callable[[float], None]], tuple[list[int], str]]


@dataclass(frozen=True)
class Bench:
    """A machine in words (see `machine`), the toolchain that networks are built by for it, and what times them."""

    machine: str
    toolchain: Toolchain
    timed: Timer


def here(engine: str, precision: str = "fp32") -> Bench:
    """Return this machine, with an engine that it has.

    Raises UsageError for an engine or a precision that is not measured here.
    """
    toolchain = choose(targets.host(), engine, precision)
    reason = engines.missing(engine)
    if reason is not None:
        raise UsageError(reason)
    return Bench(machine(), toolchain, timed)


def measure(
    bench: Bench,
    precision: str = "fp32",
    *,
    threads: int = 1,
    settings: MeasureSettings = MeasureSettings(),
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Staircase:
    """Return the staircase of a bench's engine, after a minute or two.

    Raises MissingToolError or InputError where the engine does not run, and what the bench's timer raises.
    """
    found = families(settings.widths)
    curves: dict[str, Curve] = {}
    whole: dict[str, Any] = {}
    version = ""
    for index, family in enumerate(found):
        times, version = _times(
            family,
            _Job(bench, precision, threads, settings),
            lambda stage, share, at=index: progress(stage, (at + share) / len(found)),
        )
        curves.update(family.curves(times))
        whole.update(family.whole(times))
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    engine = bench.toolchain.engine
    return Staircase(
        engine, precision, bench.machine, curves, version=version, measured=today, threads=threads, **whole
    )


def choose(target: Target, engine: str, precision: str) -> Toolchain:
    """Return a target's toolchain with an engine; raises UsageError where none is measured in that precision."""
    known = [toolchain for toolchain in target.toolchains if toolchain.engine == engine]
    if not known:
        names = ", ".join(dict.fromkeys(toolchain.engine for toolchain in target.toolchains))
        raise UsageError(f"{target.name} has no engine {engine!r}; it has: {names}")
    fitting = [toolchain for toolchain in known if precision in toolchain.precisions]
    if not fitting or precision not in PRECISIONS:
        takes = ", ".join(p for p in PRECISIONS if any(p in toolchain.precisions for toolchain in known))
        raise UsageError(f"{engine} is not measured in {precision!r}; choose one of: {takes}")
    return fitting[0]


@dataclass(frozen=True)
class _Job:
    bench: Bench
    precision: str
    threads: int
    settings: MeasureSettings


def _times(family: Family, job: _Job, progress: Callable[[str, float], None]) -> tuple[dict[str, float], str]:
    """Build a family's networks and time them; return nanoseconds by name, and the engine's version."""
    artifacts = []
    with tempfile.TemporaryDirectory() as name:
        for index, (title, build) in enumerate(family.networks.items()):
            progress(f"building {family.name}", 0.5 * index / len(family.networks))
            folder = Path(name) / str(index)
            folder.mkdir()
            model = build()
            try:
                made = artifact(model, job, folder)
            except InputError as error:
                raise InputError(f"the network {title!r} of {family.name} cannot be built: {error}") from None
            ends = {side: [spec.to_dict() for spec in getattr(model, side)] for side in ("inputs", "outputs")}
            artifacts.append({"path": str(made.path), "options": dict(made.options), **ends})
        plan = timing_plan(job.bench.toolchain.engine, artifacts, threads=job.threads, settings=job.settings)
        found, version = job.bench.timed(
            plan, lambda share: progress(f"timing {family.name}", 0.5 + share / 2)
        )
    return dict(zip(family.networks, map(float, found), strict=True)), version


def artifact(model: Model, job: _Job, folder: Path) -> Compiled:
    """Return the file that an engine loads; where a file is all that there is to it, no engine opens it to see."""
    model = _prepared(model, job)
    toolchain = job.bench.toolchain
    path = folder / f"{model.name}.{toolchain.format}"
    if toolchain.format == "onnx":
        save(shrink(model), path)
        return Compiled(path)
    if toolchain.compiler == "tflite":
        lowered = lower_model(model)
        path.write_bytes(write(lowered.file))
        return Compiled(path, lowered.options)
    return compilers.get(toolchain.compiler).compile(model, toolchain, folder)


def _prepared(model: Model, job: _Job) -> Model:
    """Return the model as the passes for a precision leave it."""
    steps: list[tuple[str, dict[str, Any]]] = [("clean", {}), ("fuse", {})]
    if job.precision == "int8":
        steps.append(("int8", _INT8))
    rng = np.random.default_rng(0)
    shapes = {spec.name: spec.shape for spec in model.inputs}
    rows = [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(CALIBRATION_ROWS)
    ]
    context = passes.Context(job.bench.toolchain.arithmetic, lambda: iter(rows))
    for name, options in steps:
        step = passes.get(name)
        model = step.run(model, step.options(**options), context)
    return model


def timing_plan(
    engine: str,
    artifacts: Sequence[Mapping[str, Any]],
    *,
    threads: int = 1,
    settings: MeasureSettings = MeasureSettings(),
) -> dict[str, Any]:
    """Return a plan for a timer; each artifact is a `path` with the `options` of `compilers.Compiled`.

    A timer elsewhere wants `inputs` and `outputs` too, as a manifest has them.
    """
    limits = {name: value for name, value in asdict(settings).items() if name != "widths"}
    return {"engine": engine, "threads": threads, "artifacts": list(artifacts), **limits}


def timed(
    plan: Mapping[str, Any], progress: Callable[[float], None] = lambda share: None
) -> tuple[list[int], str]:
    """Let a process of its own carry out a plan of `timer`; return the nanoseconds and the engine's version.

    Raises InputError where the engine refuses an artifact, ends, or takes longer than the plan's `limit_s`.
    """
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            module_command(engines.interpreter(plan["engine"]), TIMER),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, start_new_session=True,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip
        watch = threading.Timer(plan["limit_s"], process.kill)
        watch.start()
        try:
            message = _listen(process, plan, progress)
        finally:
            late = not watch.is_alive()
            watch.cancel()
            end(process)
        if "ns" in message:
            return message["ns"], message["engine"]
        if late:
            raise InputError(f"{plan['engine']} was not timed within {plan['limit_s']:g} s")
        reason = message.get("error") or obituary(plan["engine"], process.returncode, words)
        raise InputError(f"{plan['engine']} cannot be timed: {reason}")


def _listen(
    process: subprocess.Popen[bytes], plan: Mapping[str, Any], progress: Callable[[float], None]
) -> dict[str, Any]:
    """Return the last message that the process sends."""
    message: dict[str, Any] = {}
    if process.stdin is None or process.stdout is None:
        return message
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(plan).encode())
        process.stdin.close()
    for line in process.stdout:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
        if "share" in message:
            progress(message["share"])
    return message
