"""Prune: read, choose, cut, time beside the dense model, fine-tune, judge, write with a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farrier_contracts.errors import BudgetError, UsageError
from farrier_converters import metrics
from farrier_converters.metrics import Metric
from farrier_converters.model import Model
from farrier_converters.passes import Context
from farrier_converters.pruning.group import groups_of
from farrier_converters.pruning.options import PruneOptions
from farrier_converters.pruning.procedure import Pruned, totals
from farrier_converters.pruning.staircase import Staircase, default

from ..distilling.score import evaluated
from ..stages import NOTE
from ..staircases import staircase_for
from . import output
from .attempts import Attempts
from .changes import layers
from .groups import read
from .request import Goals, Place, place, share
from .result import Figures, Pruning
from .rows import Material, gather
from .timing import timed

Progress = Callable[[str, float], None]


def prune(
    model: str | Path,
    *,
    out: str | Path,
    ratio: float | str | None = None,
    speedup: float | str | None = None,
    latency: float | str | None = None,
    max_latency: str | None = None,
    parameters: float | str | None = None,
    sparsity: float | str | None = None,
    pattern: str = "unstructured",
    target: str = "host",
    engine: str | None = None,
    precision: str = "fp32",
    calib: str | Path | None = None,
    train: str | Path | None = None,
    epochs: int = 10,
    batch: int = 64,
    data: str | Path | None = None,
    metric: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    options: PruneOptions = PruneOptions(),
    progress: Progress = lambda _stage, _share: None,
) -> Pruning:
    """Remove channels and blocks from a model (ONNX, or what `farrier optimize` reads), and write what is left.

    One goal says how much goes: `ratio` ("50%" of the multiply-adds), `speedup` ("2x" fewer), `latency` ("60%" of the
    time may be left), `max_latency` ("2ms"), or `parameters` ("50%" may be left); `sparsity` makes zeros among the
    weights, besides or instead. Widths end on the steps that were measured for `engine` on this machine, and the
    result is timed beside the dense model: one that is not faster is not delivered. `calib` holds rows without labels
    for importance and rebuilding (.npz), `train` rows to fine-tune on for `epochs`, by the answers of the model as it
    came and by their labels where they have some, `data` those that judge. `options` say the rest; its goal and `fit`
    are filled in here.

    `out` is a folder for pruned.onnx, report.html and report.json, or a file `.onnx` for the model alone; nothing
    half-written is left. Raises UsageError and InputError in one sentence, and BudgetError after writing where the
    goal is out of reach.
    """
    goals = Goals.read(
        {
            "ratio": ratio,
            "speedup": speedup,
            "latency": latency,
            "max_latency": max_latency,
            "parameters": parameters,
        }
    )
    zeros = share(sparsity, what="--sparsity")
    if not goals.given and zeros is None:
        raise UsageError("say how much is to go: --ratio 50%, --speedup 2x, --latency 60%, or --sparsity 90%")
    if epochs < 0 or batch < 1:
        raise UsageError("training takes 0 epochs or more, of batches of one row or more")
    path, target_out = Path(model), Path(out)
    output.check(target_out)
    where = place(target, engine, precision)
    source = read(path)
    rows = gather(source, calib=_path(calib), train=_path(train), data=_path(data), batch=batch, seed=seed)
    for note in (*where.notes, *rows.notes):
        progress(NOTE + note, 0.0)
    fit = {"epochs": epochs, "seed": seed, "device": device, **options.fit}
    work = _Work(source, where, rows, goals, replace(options, seed=seed, device=device, fit=fit), progress)
    chosen = None if rows.evaluation is None else _metric(metric, rows)
    found = work.result(path.name, target_out, zeros, pattern, chosen)
    output.write(found.pruning, found.model, target_out)
    if not found.pruning.reached:
        raise BudgetError(f"{found.pruning.notes[0]}; the best is at {target_out}")
    return found.pruning


@dataclass(frozen=True)
class _Found:
    pruning: Pruning
    model: Model


class _Work:
    def __init__(
        self,
        source: Model,
        where: Place,
        rows: Material,
        goals: Goals,
        options: PruneOptions,
        progress: Progress,
    ) -> None:
        self.source, self.where, self.rows, self.goals = source, where, rows, goals
        self.options, self.progress = options, progress
        self.staircase = self._staircase()
        self.history: dict[str, Any] = {}
        self.medians: Mapping[str, float] = {}  # milliseconds of "dense" and "pruned", as timed last

    def result(
        self, name: str, out: Path, zeros: float | None, pattern: str, metric: Metric | None
    ) -> _Found:
        pruned = self._pruned()
        model, notes = pruned.model, [pruned.note] if pruned.note else []
        sparse = None
        if zeros is not None:
            model, sparse, statement = self._sparse(model, zeros, pattern)
            notes += statement.splitlines()
            for line in statement.splitlines():
                self.progress(NOTE + line, 0.9)
        elif self.rows.training is not None and self.options.fit["epochs"] and model is not self.source:
            model = self._tuned(model)
        before, after = self._figures(self.source, "dense"), self._figures(model, "pruned")
        after = replace(after, zeros=sparse)
        if metric is not None and self.rows.evaluation is not None:
            self.progress("judging", 0.9)
            before, after = (
                replace(f, metric=evaluated(m, self.rows.evaluation, metric, reference=self.source))
                for f, m in ((before, self.source), (after, model))
            )
        untouched = not pruned.blocks and all(c.before == c.after for c in pruned.changes) and zeros is None
        found = Pruning(
            out=out,
            model=name,
            target=self.where.target.name,
            engine=self.where.toolchain.engine,
            precision=self.where.precision,
            steps=self._steps(),
            goal=_goal(self.goals, zeros, pattern),
            importance=pruned.importance,
            before=before,
            after=after,
            groups=tuple(dict(vars(change)) for change in pruned.changes),
            blocks=pruned.blocks,
            layers=layers(self.source, model, self.staircase),
            frozen=tuple(dict(vars(item)) for item in groups_of(self.source).frozen),
            reached=pruned.reached,
            delivered="original" if untouched else "pruned",
            metric=metric,
            history=self.history,
            options=_plain(self.options),
            notes=tuple(dict.fromkeys([*notes, *self.where.notes, *self.rows.notes])),
        )
        return _Found(found, model)

    def _staircase(self) -> Staircase:
        where = self.where
        if self.options.any_width or not self.goals.given:
            return default(where.toolchain.engine, where.precision, where.target.arch)
        return staircase_for(
            where.target, where.toolchain, where.precision, measured=where.here, progress=self.progress
        )

    def _steps(self) -> str:
        if self.options.any_width:
            return "any width"
        return f"measured on {self.staircase.measured}" if self.staircase.measured else "known blocks"

    def context(self) -> Context:
        training = self.rows.training
        validation = self.rows.validation
        return Context(
            arithmetic=self.where.toolchain.arithmetic,
            calibration=self.rows.batches(),
            training=training,
            validation=None if validation is None else validation.in_order,
            original=self.source,
            staircase=self.staircase,
            progress=self.progress,
        )

    def _pruned(self) -> Pruned:
        if not self.goals.given:
            whole = totals(self.source, self.staircase)
            return Pruned(self.source, whole, whole, (), (), "none", True)
        options = self.options
        between = {} if self.rows.training is None or options.rounds == 1 else self._between()
        options = replace(options, fit=between)
        found, _ = Attempts(self.source, self._goals(), options, self.context(), self._clock).best()
        return found

    def _goals(self) -> Goals:
        """Return the goals, with milliseconds as a share of the dense model's median where it can be timed."""
        limit = self.goals.max_latency_ms
        if limit is None or not self._clock({"dense": self.source}):
            return self.goals
        return replace(self.goals, max_latency_ms=None, latency=min(1.0, limit / self.medians["dense"]))

    def _between(self) -> dict[str, Any]:
        """Half of the epochs are spent between rounds, at least one each; the other half follows."""
        epochs = int(self.options.fit["epochs"])
        each = max(1, epochs // 2 // max(self.options.rounds - 1, 1)) if epochs else 0
        return {**self.options.fit, "epochs": each} if each else {}

    def _clock(self, models: Mapping[str, Model]) -> dict[str, float]:
        """Return the shortest milliseconds of models on the target's engine, {} where it is not here.

        Medians are for the report: on a machine that does other things, they lengthen long runs more than short ones.
        """
        if not self.where.here:
            return {}
        self.progress("timing", 0.8)
        found = timed(
            models, self.where.toolchain, self.where.precision, self.rows.calibration or self.rows.timing
        )
        self.medians = {name: latency.p50_ms for name, latency in found.items()}
        return {name: min(latency.samples_ms) for name, latency in found.items()}

    def _tuned(self, model: Model) -> Model:
        from farrier_converters.passes.distill import DistillOptions, distill

        found = distill(model, DistillOptions(fit=self.options.fit, adapt=0), self.context())
        self.history = found.history.to_dict()
        return found.model

    def _sparse(self, model: Model, zeros: float, pattern: str) -> tuple[Model, float, str]:
        from farrier_converters.passes.sparsify import SparsifyOptions, sparsify
        from farrier_converters.sparsity.patterns import parse
        from farrier_converters.sparsity.statement import statement

        trains = self.rows.training is not None and self.options.fit["epochs"]
        options = SparsifyOptions(
            ratio=zeros,
            pattern=pattern,
            exclude=self.options.exclude,
            fit=self.options.fit if trains else {},
            schedule="cubic" if trains else "one-shot",
        )
        found = sparsify(model, options, self.context())
        if found.history is not None:
            self.history = found.history.to_dict()
        return found.model, found.report.sparsity, statement(self.where.target, parse(pattern))

    def _figures(self, model: Model, name: str) -> Figures:
        latency = self.medians.get("dense" if model is self.source else name)
        whole = totals(model, self.staircase)
        return Figures(
            whole.multiply_adds, whole.parameters, model.proto.ByteSize(), whole.ms, latency_ms=latency
        )


def _metric(name: str | None, rows: Material) -> Metric:
    assert rows.evaluation is not None
    return metrics.get(name) if name else metrics.choose(rows.evaluation.labels)


def _goal(goals: Goals, zeros: float | None, pattern: str) -> str:
    said = {
        "ratio": "{:.0%} fewer multiply-adds",
        "speedup": "{:g} times fewer multiply-adds",
        "latency": "{:.0%} of the time",
        "parameters": "{:.0%} of the parameters",
        "max_latency_ms": "{:g} ms",
    }
    parts = [said[name].format(value) for name, value in vars(goals).items() if value is not None]
    if zeros is not None:
        parts.append(f"{zeros:.0%} zeros ({pattern})")
    return ", ".join(parts)


def _plain(options: PruneOptions) -> dict[str, Any]:
    return {**vars(options), "exclude": list(options.exclude), "fit": dict(options.fit)}


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
