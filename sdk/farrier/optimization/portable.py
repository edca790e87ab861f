"""What an INT8 candidate will score on other processors, and a variant that scores the same on all of a family.

Where a processor knows fewer kinds of scales than the file has, its score is that of what the plan would make for it.

One file of u8 activations runs on x86 processors with VNNI and without, and where products saturate in 16 bits it
answers differently. So every arithmetic is emulated on some evaluation rows, and where a file's family disagrees by
more than a limit, a variant with 7-bit weights, in which nothing can saturate, stands for election beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from farrier_contracts.errors import FarrierError
from farrier_contracts.targets import ARITHMETICS, PAIRS, Arithmetic, Toolchain
from farrier_converters import metrics
from farrier_converters.data import RANDOM, Dataset
from farrier_converters.emulate import Emulator, Saturation, fits, recast
from farrier_converters.measure import EngineFailure, evaluate, record
from farrier_converters.measure.evaluate import Reference
from farrier_converters.model import Model
from farrier_converters.search import WAYS, Candidate, Choice, Step, suit
from farrier_converters.search.choose import Verdict

from .build import LEARNED, Built, apply, precision_of
from .job import Job
from .recipe import ORIGINAL
from .result import Entry
from .trial import Progress

QUANTIZED = "int8"
SAFE_BITS = 7
SAFE_SUFFIX = "-7bit"
PREDICTED = ("x86-vnni", "x86-avx2", "arm", "tflite-reference", "npu-per-tensor")
EMULATED = ("onnxruntime",)  # engines whose kernels hang on the processor in a way that is known


@dataclass(frozen=True)
class PortableSettings:
    """How much is emulated, and which spread is too much."""

    rows: int = 256  # evaluation rows at most
    multiply_adds: float = 5e9  # per candidate and arithmetic at most: large models get fewer rows
    batch: int = 32  # rows at once at most
    spread: float = 0.002  # between processors that run one file, in the metric's own measure of a drop


@dataclass(frozen=True)
class Prediction:
    """One candidate in one arithmetic. `as_it_is`: the file's own integers; else what is made for it."""

    arithmetic: str
    value: float
    drop: float
    saturated: int  # pairs of products, of `pairs`
    pairs: int
    as_it_is: bool

    def to_document(self) -> dict[str, Any]:
        """Return the form of `report.json`."""
        return vars(self)


@dataclass(frozen=True)
class Outlook:
    """What is predicted for one candidate on `rows` rows, or `failure`: why nothing is."""

    candidate: str
    rows: int = 0
    baseline: float = 0.0  # the original's metric on the same rows
    predictions: tuple[Prediction, ...] = ()
    family: tuple[str, ...] = ()  # the arithmetics of processors that the file itself is made for
    failure: str = ""

    @property
    def spread(self) -> float:
        """How far the family's drops lie apart."""
        drops = [p.drop for p in self.predictions if p.arithmetic in self.family]
        return max(drops) - min(drops) if drops else 0.0

    @property
    def saturates(self) -> bool:
        """Whether pairs of products saturate on a processor of the family."""
        return any(p.saturated for p in self.predictions if p.arithmetic in self.family)

    def to_document(self) -> dict[str, Any]:
        """Return the form of `report.json`."""
        if self.failure:
            return {"candidate": self.candidate, "failure": self.failure}
        return {
            "candidate": self.candidate,
            "rows": self.rows,
            "baseline": self.baseline,
            "family": list(self.family),
            "spread": self.spread,
            "arithmetics": [p.to_document() for p in self.predictions],
        }


@dataclass
class Forecast:
    """The predictions of a run, and which candidate has a variant that stands in for it."""

    outlooks: list[Outlook] = field(default_factory=list)
    variants: dict[str, str] = field(default_factory=dict)  # name -> that of its variant

    def to_document(self) -> list[dict[str, Any]]:
        """Return the form of `report.json`."""
        return [outlook.to_document() for outlook in self.outlooks]


def look(
    job: Job,
    builds: Mapping[str, Built],
    original: Built,
    *,
    progress: Progress,
    settings: PortableSettings = PortableSettings(),
) -> list[Outlook]:
    """Predict every integer candidate among these builds in every arithmetic; failures become reasons."""
    chosen = [
        b
        for b in builds.values()
        if b.candidate.name != ORIGINAL and b.candidate.toolchain.engine in EMULATED and _integer(b)
    ]
    found: list[Outlook] = []
    with tempfile.TemporaryDirectory() as folder:
        rows: _Rows | None = None
        for index, built in enumerate(chosen):
            progress(f"emulating {built.candidate.name} on other processors", index / len(chosen))
            try:
                rows = rows or _rows(job, built, original, Path(folder), settings)
                found.append(_outlook(job, built, rows))
            except (FarrierError, EngineFailure) as error:
                found.append(Outlook(built.candidate.name, failure=str(error)))
    return found


def variant(
    built: Built, outlook: Outlook, settings: PortableSettings = PortableSettings()
) -> Candidate | None:
    """Return the candidate with weights in which nothing saturates, where processors of one family disagree."""
    if not outlook.saturates or outlook.spread <= settings.spread:
        return None
    steps = tuple(
        replace(step, options={**step.options, "weight_bits": SAFE_BITS}) if _has_more_bits(step) else step
        for step in built.candidate.steps
    )
    if steps == built.candidate.steps:
        return None
    return replace(built.candidate, name=built.candidate.name + SAFE_SUFFIX, steps=steps)


def _has_more_bits(step: Step) -> bool:
    return step.name == QUANTIZED and (step.options.get("weight_bits") or 8) > SAFE_BITS


def elect(
    entries: Mapping[str, Entry], variants: Mapping[str, str], choose: Callable[[Mapping[str, Entry]], Choice]
) -> Choice:
    """Choose; where the winner has a variant that is the same everywhere, choose again without such winners.

    That counts only where it delivers a variant: to lose the speed or size of integers is worse than a file that is
    right on the asked target alone.
    """
    choice = choose(entries)
    if choice.delivered not in variants:
        return choice
    again = choose({name: e for name, e in entries.items() if name not in variants})
    if again.delivered not in variants.values():
        return choice
    told = tuple(
        Verdict(
            name,
            safe=True,
            feasible=True,
            kept=False,
            reason=f"scores otherwise on other processors; {safe} does not",
        )
        for name, safe in variants.items()
        if name in entries
    )
    return replace(again, verdicts=(*again.verdicts, *told))


def family(arithmetic: Arithmetic) -> tuple[str, ...]:
    """Return the arithmetics that a file made for this one meets in the field: the same integers, other kernels."""
    return tuple(
        other.name
        for other in ARITHMETICS.values()
        if other.activations == arithmetic.activations
        and other.per_channel == arithmetic.per_channel
        and other.symmetric_activations == arithmetic.symmetric_activations
        and other.rounding == arithmetic.rounding
    )


def warnings(
    outlooks: Sequence[Outlook], delivered: str, spread: float = PortableSettings.spread
) -> tuple[str, ...]:
    """Say where the delivered file scores differently on another processor of its family."""
    for outlook in outlooks:
        if outlook.candidate != delivered or outlook.spread <= spread:
            continue
        worst = max((p for p in outlook.predictions if p.arithmetic in outlook.family), key=lambda p: p.drop)
        what = ARITHMETICS[worst.arithmetic].description
        return (
            f"{delivered} is predicted to score otherwise on {what} ({worst.arithmetic}): the drop is "
            f"{worst.drop:.2%} there, {outlook.spread:.2%} more than elsewhere",
        )
    return ()


def _integer(built: Built) -> bool:
    ops = {node.op_type for node in built.model.proto.graph.node}
    return precision_of(built.model) == QUANTIZED and "QuantizeLinear" in ops


@dataclass(frozen=True)
class _Rows:
    """What every candidate is emulated on, and what the original makes of it."""

    data: Dataset
    batch: int
    reference: Reference | None
    baseline: float


def _rows(job: Job, built: Built, original: Built, folder: Path, settings: PortableSettings) -> _Rows:
    """Take as many of the first evaluation rows as the work of a candidate allows, at least one run's."""
    data = job.rows.evaluation
    emulator = Emulator(built.model, ARITHMETICS["x86-vnni"])
    least = data.fixed_batch or 1
    emulator.run(data.feed(data.rows[:least] if len(data) >= least else data.rows))
    runs = int(settings.multiply_adds // max(emulator.multiply_adds, 1))
    data = data.take(data.rows[: max(least, min(settings.rows, runs * least))])
    batch = data.fixed_batch or min(settings.batch, len(data))
    with original.judge(job.settings.trial.child) as child:
        reference = None if job.metric.needs_labels else record(child, data, folder, batch=batch)
        baseline = evaluate(child, data, job.metric, batch=batch, reference=reference)
    return _Rows(data, batch, reference, baseline)


def _outlook(job: Job, built: Built, rows: _Rows) -> Outlook:
    arithmetic = built.candidate.toolchain.arithmetic or ARITHMETICS["x86-vnni"]
    scores = _scores(job, built, rows)
    return Outlook(
        built.candidate.name,
        len(rows.data),
        rows.baseline,
        tuple(
            Prediction(
                name,
                value,
                metrics.drop(job.metric, rows.baseline, value),
                found.saturated,
                found.pairs,
                as_it_is,
            )
            for name, (value, found, as_it_is) in scores.items()
        ),
        family(arithmetic),
    )


def _made_for(job: Job, built: Built, arithmetic: Arithmetic) -> Model:
    """Return the network as the plan makes it for another arithmetic, in the candidate's precision.

    Where that is no plan's, would take minutes, or has no data to go by, the file itself gets the other scales.
    """
    candidate = built.candidate
    steps = next((steps for _, steps in WAYS.get(candidate.precision, ())), ())
    names = [step.name for step in steps]
    planned = names == [step.name for step in candidate.steps] and not set(names).intersection(LEARNED)
    if not planned or job.rows.calibration.source == RANDOM:
        return recast(built.model, arithmetic)
    key = candidate.precision, arithmetic.name
    if key not in job.foreign:
        made = replace(candidate, steps=suit(steps, arithmetic))
        context = job.context(made, built.batch, _silent)
        context = replace(context, arithmetic=arithmetic, statistics=job.statistics)
        job.foreign[key] = apply(job.model, made, context)[0]
    return job.foreign[key]


def _silent(_stage: str, _share: float) -> None:
    pass


def _scores(job: Job, built: Built, rows: _Rows) -> dict[str, tuple[float, Saturation, bool]]:
    """Return the metric in every arithmetic; those that cannot differ are emulated once."""

    def score(arithmetic: Arithmetic) -> tuple[float, Saturation, bool]:
        as_it_is = fits(built.model, arithmetic)
        model = built.model if as_it_is else _made_for(job, built, arithmetic)
        emulator = Emulator(model, arithmetic)
        value = evaluate(emulator, rows.data, job.metric, batch=rows.batch, reference=rows.reference)
        return value, sum(emulator.saturation.values(), Saturation()), as_it_is

    found: dict[str, tuple[float, Saturation, bool]] = {}
    same: dict[tuple[str, bool], tuple[float, Saturation, bool]] = {}
    asked = _asked(built.candidate.toolchain)
    for arithmetic in sorted(asked, key=lambda a: a.accumulator != PAIRS):
        key = arithmetic.rounding, fits(built.model, arithmetic)
        if key not in same:
            found[arithmetic.name] = score(arithmetic)
            if not found[arithmetic.name][1].saturated:  # then the sums were exact
                same[key] = found[arithmetic.name]
        else:
            value, saturation, as_it_is = same[key]
            found[arithmetic.name] = value, Saturation(saturation.pairs * 0), as_it_is
    return {arithmetic.name: found[arithmetic.name] for arithmetic in asked}


def _asked(toolchain: Toolchain) -> list[Arithmetic]:
    """Return the arithmetics that a user may meet, and the toolchain's own."""
    return [a for a in ARITHMETICS.values() if a.name in PREDICTED or a == toolchain.arithmetic]
