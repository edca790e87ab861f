"""From a candidate to an artifact: passes, then the toolchain's compiler, with a digest of every step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from farrier_contracts import targets
from farrier_converters import compilers, passes
from farrier_converters.fusion import Log
from farrier_converters.measure import Child, ChildSettings, faithful, own_arithmetic
from farrier_converters.model import Model, save
from farrier_converters.search import Candidate, Step
from farrier_converters.weights.marks import weights_precision

from ..stages import NOTE
from .recipe import options

TWIN = "twin"  # the folder inside a candidate's
PLAIN = ("clean", "fuse")  # passes whose result hangs on the graph alone
# passes whose result hangs on the graph and on what is the same for all candidates of a job and engine: minutes of work
SHARED = (*PLAIN, "prune", "student", "distill", "finetune", "sparsify")
MADE = "\0made by "  # begins the name under which it is remembered; no tensor's begins so
Watcher = Callable[[int, Model, str], None]  # (the step's index, what it made, that one's digest)
LEARNED = ("qat", "adaround")  # passes that clean, fuse and quantize, and then learn for minutes


@dataclass(frozen=True)
class Made:
    """What a pass that candidates share made of a graph, that one's digest, and what the pass did."""

    model: Model
    digest: str
    log: Log


@dataclass(frozen=True)
class Built:
    """A candidate's artifact, its graph, and the SHA-256 of the graph after each pass.

    `twin` is the same network in the integers that this machine is fast in, where the target's are others: it is
    timed in place of the artifact, whose integers would take a detour here that they do not take on the target.
    """

    candidate: Candidate
    model: Model
    path: Path
    digests: tuple[str, ...]
    batch: int = 1  # rows per calibration run
    twin: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the artifact, for its engine
    notes: tuple[str, ...] = ()  # the compiler's
    runs: Path | None = None  # what a stand-in for the engine runs, where that is not the artifact itself

    def same_as(self, other: Built) -> bool:
        """Say whether both are the same graph, built by the same toolchain."""
        mine, theirs = self.candidate.toolchain, other.candidate.toolchain
        return mine == theirs and bool(self.digests) and self.digests[-1:] == other.digests[-1:]

    @property
    def faithful(self) -> bool:
        """Whether this machine's kernels give the answers that the target's will."""
        return faithful(self.candidate.toolchain, precision_of(self.model), targets.host())

    def child(self, settings: ChildSettings) -> Child:
        """Return the engine process to be timed: the artifact, or its twin, with this machine's kernels."""
        path = self.twin or self.runs or self.path
        return Child(path, self.candidate.toolchain.answers_in, settings, options=self.options)

    def judge(self, settings: ChildSettings) -> Child:
        """Return the engine process whose answers count: in reference arithmetic where kernels are not faithful."""
        engine = self.candidate.toolchain.answers_in
        path = self.runs or self.path
        return Child(path, engine, settings, reference=not self.faithful, options=self.options)

    @property
    def size_bytes(self) -> int:
        """The artifact's size."""
        return self.path.stat().st_size


def build(
    model: Model,
    candidate: Candidate,
    folder: Path,
    *,
    batch: int,
    context: passes.Context,
    timed: bool = True,
    watch: Watcher | None = None,
) -> Built:
    """Apply the candidate's passes and compile into `folder`; raises whatever a pass, compiler or `watch` raises.

    Where the artifact will be timed and this machine's kernels are not the target's, its twin for this machine is
    built too.
    """
    toolchain = candidate.toolchain
    graph, digests = apply(model, candidate, context, watch)
    compiler = compilers.get(toolchain.compiler)
    folder.mkdir()
    made = compiler.compile(graph, toolchain, folder)
    built = Built(
        candidate,
        graph,
        made.path,
        digests,
        batch,
        options=made.options,
        notes=made.notes,
        runs=made.runs,
    )
    own = own_arithmetic(toolchain, targets.host())
    if built.faithful or own is None or not timed:
        return built
    twin, _ = apply(model, _untrained(candidate), replace(context, arithmetic=own))
    (folder / TWIN).mkdir()
    return replace(built, twin=compiler.compile(twin, toolchain, folder / TWIN).path)


def _untrained(candidate: Candidate) -> Candidate:
    """Return a candidate that builds the same operators at once: a twin is timed, not judged."""
    steps: list[Step] = []
    for step in candidate.steps:
        if step.name in LEARNED:
            steps += [Step("clean"), Step("fuse"), Step("int8", dict(step.options.get("int8", {})))]
        else:
            steps.append(step)
    return replace(candidate, steps=tuple(steps))


def apply(
    model: Model, candidate: Candidate, context: passes.Context, watch: Watcher | None = None
) -> tuple[Model, tuple[str, ...]]:
    """Run a candidate's passes; return the graph, and its digest after each of them.

    `context.statistics` holds, by a graph's digest, what calibration found, and what the passes that candidates share
    made of it. `watch(index, model, digest)` hears of each step, and may raise.
    """
    digests: list[str] = []
    known = {} if context.statistics is None else context.statistics
    for index, step in enumerate(candidate.steps):
        of_graph = known.setdefault("".join(digests[-1:]), {})
        key = _key(step, candidate)
        made = of_graph.get(key)
        if made is None:
            log = Log()
            told = _telling(context, candidate, step)
            given = replace(context, statistics=of_graph, log=log, progress=told)
            model = passes.get(step.name).run(model, options(step), given)
            made = Made(model, digest_of(model), log)
            if step.name in SHARED:
                of_graph[key] = made
        model, digest = made.model, made.digest
        digests.append(digest)
        if watch is not None:
            watch(index, model, digest)
    return model, tuple(digests)


def logs(candidate: Candidate, statistics: Mapping[str, Any]) -> Iterator[Log]:
    """Yield what a candidate's graph passes did to the model, where `apply` has remembered it."""
    digest = ""
    for step in candidate.steps:
        made = statistics.get(digest, {}).get(_key(step, candidate))
        if made is None:
            return
        digest = made.digest
        yield made.log


def _key(step: Step, candidate: Candidate) -> str:
    """Return what a step's result is remembered under, besides the digest of the graph that it is given.

    What widths cost hangs on the engine and on what it will compute in.
    """
    place = "" if step.name in PLAIN else f" {candidate.toolchain.engine} {candidate.precision}"
    return f"{MADE}{step.name}{place} {sorted(step.options.items())}"


def _telling(context: passes.Context, candidate: Candidate, step: Step) -> Callable[[str, float], None]:
    """Return a progress that says which candidate and which step it is about; notes are said as they are."""

    def tell(stage: str, share: float) -> None:
        said = stage if stage.startswith(NOTE) else f"{candidate.name}, {step.name}: {stage}"
        context.progress(said, share)

    return tell


def as_it_came(model: Model, candidate: Candidate, folder: Path) -> Built:
    """Write the original model into `folder` without loading it in any engine: it may take the process down."""
    folder.mkdir()
    path = folder / f"{model.name}.{candidate.toolchain.format}"
    save(model, path)
    return Built(candidate, model, path, ())


def digest_of(model: Model) -> str:
    """Return the SHA-256 of a graph's deterministic bytes."""
    return hashlib.sha256(model.proto.SerializeToString(deterministic=True)).hexdigest()


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def precision_of(model: Model) -> str:
    """Return what a model that came from elsewhere computes in, as far as its graph shows."""
    ops = {node.op_type for node in model.proto.graph.node}
    stored = weights_precision(model.proto)
    if stored == "fp8":  # its quantizers are no integers
        return stored
    if ops & {"QuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}:
        return "int8"
    if stored is not None:
        return stored
    half = sum(t.data_type == t.FLOAT16 for t in model.proto.graph.initializer)
    single = sum(t.data_type == t.FLOAT for t in model.proto.graph.initializer)
    return "fp16" if half > single else "fp32"
