"""Each step of a recipe, validated: what it made is judged on rows no training saw, and a broken one ends there."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from farrier_contracts.errors import FarrierError, InputError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, metrics
from farrier_converters.check.costs import of_onnx
from farrier_converters.data import Dataset
from farrier_converters.graph.types import infer
from farrier_converters.measure import Child, EngineFailure, Latency, evaluate, measure, record
from farrier_converters.measure.evaluate import Reference
from farrier_converters.model import Model, load, save
from farrier_converters.search import Candidate

from ..trial import TrialSettings

ENGINE = "onnxruntime"  # that answers for a graph between two passes
WITHOUT_LABELS = "agreement"
CHANGING = ("prune", "student", "distill", "finetune", "sparsify")  # passes after which it is another network
TEACHING = ("distill", "finetune", "qat", "adaround")  # passes that may repair what those before them broke
DEVIATIONS = 2.0  # of the difference of two scores of so many rows: less is no reason to give up


@dataclass(frozen=True)
class StepFigures:
    """One step of a candidate: how large what it made is, and how good on the rows that judge steps.

    `metric` and `drop` are None where there is none that is finite; `bytes` and `latency_ms` are of what the toolchain
    compiles of it, where it can, else of the graph.
    """

    name: str
    metric: float | None
    drop: float | None
    bytes: int
    parameters: int
    multiply_adds: int  # of one row
    latency_ms: float | None = None


class BrokenStepError(FarrierError):
    """A step lost more than the budget allows, and no later one can repair it."""


@dataclass
class Watch:
    """Judges steps in the order they come; figures of equal graphs are remembered, and their files kept in `folder`.

    `original` is the model as it came, `rows` are those that judge.
    """

    original: Model
    rows: Dataset
    metric: metrics.Metric
    max_drop: float
    batch: int
    folder: Path
    settings: TrialSettings
    known: dict[str, StepFigures] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    _reference: Reference | None = None
    _baseline: float | None = None

    def __post_init__(self) -> None:
        """Judge by agreement with the original where the rows have no labels for the metric."""
        if self.metric.needs_labels and self.rows.labels is None:
            self.metric = metrics.get(WITHOUT_LABELS)

    def wants(self, candidate: Candidate) -> bool:
        """Say whether a candidate becomes another network on its way, so that its steps are judged."""
        return any(step.name in CHANGING for step in candidate.steps)

    def see(self, candidate: Candidate, index: int, model: Model, digest: str, *, faithful: bool) -> None:
        """Judge what the step `index` made; raises BrokenStepError where the candidate has no future.

        `faithful` says that this machine's integer kernels answer as the target's will.
        """
        if digest not in self.known:
            self.known[digest] = self._figures(candidate.steps[index].name, model, digest, faithful=faithful)
        found = self.known[digest]
        rest = [step.name for step in candidate.steps[index + 1 :]]
        if found.metric is None:
            raise BrokenStepError(f"what the pass {found.name} made has no finite {self.metric.name}")
        if found.drop is None or not rest or any(name in TEACHING for name in rest):
            return
        changed = any(step.name in CHANGING for step in candidate.steps[: index + 1])
        allowed = self.max_drop + self._margin()
        if changed and found.drop > allowed:
            raise BrokenStepError(
                f"ended after the pass {found.name}: it drops {found.drop:.2%} on {len(self.rows)} held-out rows, "
                f"and no later pass trains"
            )

    def figures(self, candidate: Candidate, digests: tuple[str, ...]) -> list[StepFigures]:
        """Return the figures of a built candidate's steps, the original first, with latencies measured side by side."""
        graphs = {"original": self._original(), **dict(zip(digests, self._paths(digests), strict=True))}
        compiled = _compiled(graphs, candidate.toolchain, self.rows, self.settings)
        known = [("original", "original", self._of_original())]
        known += [(step.name, d, self.known[d]) for step, d in zip(candidate.steps, digests, strict=True)]
        return [replace(figures, name=name, **compiled.get(key, {})) for name, key, figures in known]

    def _paths(self, digests: tuple[str, ...]) -> Iterator[Path]:
        return (self.files[digest] for digest in digests)

    def _original(self) -> Path:
        path = self.folder / "original.onnx"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            save(self.original, path)
        return path

    def _of_original(self) -> StepFigures:
        return _sizes("original", self.original, self._original(), self._start(), 0.0)

    def _start(self) -> float:
        """Return the original's metric on the rows, recording its answers where the metric compares with them."""
        if self._baseline is None:
            with Child(self._original(), ENGINE, self.settings.child) as child:
                if not self.metric.needs_labels:
                    answers = self.folder / "answers"
                    answers.mkdir(parents=True)
                    self._reference = record(child, self.rows, answers, batch=self.batch)
                self._baseline = self._value(child)
        return self._baseline

    def _value(self, child: Child) -> float:
        return evaluate(child, self.rows, self.metric, batch=self.batch, reference=self._reference)

    def _figures(self, name: str, model: Model, digest: str, *, faithful: bool) -> StepFigures:
        start = self._start()
        path = self.files[digest] = self.folder / f"{digest}.onnx"
        save(model, path)
        try:
            with Child(path, ENGINE, self.settings.child, reference=not faithful) as child:
                value = self._value(child)
        except EngineFailure:
            return _sizes(name, model, path, None, None)
        return _sizes(name, model, path, value, metrics.drop(self.metric, start, value))

    def _margin(self) -> float:
        """Return how much of a drop may be chance: the rows are few."""
        value = self._start()
        if self.metric.relative or not 0 <= value <= 1:
            return self.max_drop
        return DEVIATIONS * math.sqrt(max(2 * value * (1 - value), 1 / len(self.rows)) / len(self.rows))


def _sizes(name: str, model: Model, path: Path, metric: float | None, drop: float | None) -> StepFigures:
    types = infer(model.proto)
    return StepFigures(
        name,
        metric,
        drop,
        bytes=path.stat().st_size,
        parameters=sum(math.prod(tensor.dims) for tensor in model.proto.graph.initializer),
        multiply_adds=sum(of_onnx(node, types) for node in model.proto.graph.node),
    )


def _compiled(
    graphs: Mapping[str, Path], toolchain: Toolchain, rows: Dataset, settings: TrialSettings
) -> dict[str, dict[str, Any]]:
    """Return what the toolchain makes of each graph: its bytes, and its median milliseconds unless that misleads.

    What cannot be compiled or run is left out: it is not what is delivered.
    """
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        children: dict[str, Child] = {}
        for number, (name, path) in enumerate(graphs.items()):
            with _tolerated():
                place = Path(folder) / str(number)
                place.mkdir()
                made = compilers.get(toolchain.compiler).compile(load(path), toolchain, place)
                found[name] = {"bytes": made.path.stat().st_size}
                child = Child(
                    made.runs or made.path, toolchain.answers_in, settings.child, options=made.options
                )
                children[name] = stack.enter_context(child)
        if toolchain.stand_in:
            return found
        feeds = rows.feed(rows.rows[: rows.fixed_batch or 1])
        timed = measure(children, feeds, batch=rows.fixed_batch or 1, settings=settings.profile)
    for name, latency in timed.items():
        if isinstance(latency, Latency):
            found[name]["latency_ms"] = latency.p50_ms
    return found


@contextmanager
def _tolerated() -> Iterator[None]:
    """Let a graph between two passes that an engine cannot run have no latency."""
    try:
        yield
    except (EngineFailure, InputError):
        return


def document(steps: list[StepFigures]) -> list[dict[str, Any]]:
    """Return the form of the lock and of `report.json`, without what is not known."""
    return [{k: value for k, value in asdict(step).items() if value is not None} for step in steps]
