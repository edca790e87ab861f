"""The check itself: evidence from rows, from the network, and from evaluation rows; at most a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..data import RANDOM, Dataset
from ..graph import run
from ..model import Model
from .hypotheses import CHANNELS, LAYOUT, MEAN, SCALE, Hypothesis, channel_axis, hypotheses
from .network import Listener, Reaction
from .smoothness import smoothness

FEW, NOISE, ONE_CLASS = "too few samples", "noise", "one class only"


@dataclass(frozen=True)
class CheckSettings:
    """How much is looked at, and what counts as a fault."""

    rows: int = 128
    batch: int = 16
    fewest: int = 16  # different rows
    noisy: float = 0.2  # neighbours of pictures correlate by more than this
    smoother: float = 0.1  # by so much does the right layout win
    misfit: float = 0.15  # divergence from the stored statistics that is worth a question
    mended: float = 0.6  # of the divergence may remain where a hypothesis is right
    informed: float = 0.2  # so much more do answers tell where a hypothesis is right
    least_information: float = 0.55  # of the most possible, where a hypothesis is right
    surer: float = 3.0  # standard errors, between answers to rows with their channels swapped and not
    closer: float = 0.93  # of the divergence may remain where swapped channels are right
    one_class: float = 0.65  # share of the rows
    shifted: float = 0.5  # standard deviations between the means of calibration and evaluation rows
    stretched: float = 1.5  # times, between their standard deviations


@dataclass(frozen=True)
class Fault:
    """What is wrong with calibration rows, in one sentence that ends with what to do."""

    kind: str
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def check(
    model: Model,
    calibration: Dataset,
    evaluation: Dataset | None = None,
    *,
    settings: CheckSettings = CheckSettings(),
) -> list[Fault]:
    """Return the faults of calibration rows, none for sound ones or made-up ones; evaluation rows are evidence too.

    Sources of the evidence: batch norms' running statistics against observed ones, information between rows and
    predictions, resemblance of neighbours, and moments against those of the evaluation rows.
    """
    name = _image_input(model, calibration)
    if calibration.source == RANDOM or name is None:
        return []
    rows = _values(calibration, name, settings.rows)
    found = [*_few(rows, calibration, settings)]
    other = (
        None
        if evaluation is None or evaluation.source == RANDOM
        else _values(evaluation, name, settings.rows)
    )
    order = _noise(rows, other, settings) or _layout(rows, settings)
    if order:
        return [*found, *order]
    compared = _moments(rows, other, settings)
    try:
        listener = Listener(model)
        now = listener.react(_batches(calibration, name, settings, None))
        alike = other is not None  # moments that agree with the evaluation rows' leave channels to ask about
        heard = compared or _heard(listener, calibration, name, rows, now, settings, channels_only=alike)
        reference = None
        if evaluation is not None and other is not None:
            reference = listener.react(_batches(evaluation, name, settings, None))
    except run.runtime_errors():
        return [*found, *compared]
    return [*found, *heard, *([] if heard else _one_class(now, reference, calibration, settings))]


def _image_input(model: Model, data: Dataset) -> str | None:
    """Return the one input that holds the rows' values: float, and with more than one value a row."""
    names = [s.name for s in model.inputs if s.name not in data.constant | data.stacked and len(s.shape) >= 2]
    floats = [n for n in names if np.issubdtype(data.feed(data.rows[:1])[n].dtype, np.floating)]
    return floats[0] if len(floats) == 1 else None


def _values(data: Dataset, name: str, rows: int) -> np.ndarray:
    picked = data.rows[np.linspace(0, len(data) - 1, min(rows, len(data))).astype(np.int64)]
    return np.asarray(data.arrays[name][picked], np.float32)


def _batches(
    data: Dataset, name: str, settings: CheckSettings, hypothesis: Hypothesis | None
) -> list[dict[str, np.ndarray]]:
    size = data.fixed_batch or settings.batch
    picked = data.rows[np.linspace(0, len(data) - 1, min(settings.rows, len(data))).astype(np.int64)]
    found = []
    for feeds, _ in data.take(picked).batches(size):
        if hypothesis is not None:
            mended = np.ascontiguousarray(hypothesis.mend(feeds[name]), feeds[name].dtype)
            feeds = {**feeds, name: mended}  # noqa: PLW2901 (the stream's own batch stays as it was)
        found.append(feeds)
    return found


def _few(rows: np.ndarray, data: Dataset, settings: CheckSettings) -> list[Fault]:
    different = len(np.unique(rows.reshape(len(rows), -1), axis=0))
    if different >= settings.fewest:
        return []
    how = f"{len(data)} rows" if different == len(rows) else f"{different} different rows of {len(data)}"
    return [
        Fault(
            FEW,
            f"calibration has {how}: ranges will miss what they do not show; give "
            f"{settings.fewest} at least, better 100",
            {"rows": len(data), "different": different},
        )
    ]


def _noise(rows: np.ndarray, other: np.ndarray | None, settings: CheckSettings) -> list[Fault]:
    smooth, reference = smoothness(rows), None if other is None else smoothness(other)
    if smooth is None:
        return []
    image = channel_axis(rows.shape) is not None
    unlike = reference is not None and reference > settings.noisy + 2 * settings.smoother
    if smooth >= settings.noisy or not (unlike or (image and reference is None)):
        return []
    return [
        Fault(
            NOISE,
            f"calibration rows look like noise (neighbours correlate by {smooth:.2f}): give real inputs",
            {"smoothness": smooth},
        )
    ]


def _layout(rows: np.ndarray, settings: CheckSettings) -> list[Fault]:
    smooth = smoothness(rows)
    for hypothesis in hypotheses(rows.shape, 0.0, 0.0):
        mended = smoothness(hypothesis.mend(rows)) if hypothesis.kind == LAYOUT else None
        if smooth is None or mended is None or mended < smooth + settings.smoother:
            continue
        return [
            Fault(
                LAYOUT,
                f"calibration rows seem to have another layout: {hypothesis.text}",
                {"smoothness": smooth, "mended": mended},
            )
        ]
    return []


def _moments(rows: np.ndarray, other: np.ndarray | None, settings: CheckSettings) -> list[Fault]:
    """Compare means and deviations with those of the evaluation rows."""
    if other is None or other.shape[1:] != rows.shape[1:]:
        return []
    mean, deviation, wanted, spread = (
        float(rows.mean()),
        float(rows.std()),
        float(other.mean()),
        float(other.std()),
    )
    ratio, shift = deviation / max(spread, 1e-12), (mean - wanted) / max(spread, 1e-12)
    numbers = {
        "mean": mean,
        "deviation": deviation,
        "evaluation_mean": wanted,
        "evaluation_deviation": spread,
    }
    if max(ratio, 1 / max(ratio, 1e-12)) > settings.stretched:
        text = (
            f"calibration rows are {ratio:.3g} times as large as evaluation rows: prepare both with one scale"
        )
        return [Fault(SCALE, text, numbers)]
    if abs(shift) > settings.shifted:
        text = f"calibration rows have the mean {mean:.3g}, evaluation rows {wanted:.3g}: prepare both with one mean"
        return [Fault(MEAN, text, numbers)]
    return []


def _heard(
    listener: Listener,
    data: Dataset,
    name: str,
    rows: np.ndarray,
    now: Reaction,
    settings: CheckSettings,
    *,
    channels_only: bool,
) -> list[Fault]:
    """Ask the network about each hypothesis; return the best one where it takes it clearly better."""
    best: tuple[float, Hypothesis] | None = None
    for hypothesis in hypotheses(rows.shape, float(rows.mean()), float(rows.std())):
        if hypothesis.kind == LAYOUT or (channels_only and hypothesis.kind != CHANNELS):
            continue
        if hypothesis.kind != CHANNELS and not _doubtful(now, settings):
            continue
        then = listener.react(_batches(data, name, settings, hypothesis))
        gain = _swapped(now, then, settings) if hypothesis.kind == CHANNELS else _gain(now, then, settings)
        if gain > 0 and (best is None or gain > best[0]):
            best = (gain, hypothesis)
    if best is None:
        return []
    evidence = "its stored statistics" if now.misfit is not None else "its answers"
    kind = best[1].kind
    return [
        Fault(
            kind,
            f"calibration rows seem to have a wrong {kind}: the network's own expectations ({evidence}) fit far better "
            f"when you {best[1].text}",
            {"gain": best[0], **({} if now.misfit is None else {"misfit": now.misfit})},
        )
    ]


def _doubtful(now: Reaction, settings: CheckSettings) -> bool:
    if now.misfit is not None:
        return now.misfit > settings.misfit / 8
    return now.information is not None


def _gain(now: Reaction, then: Reaction, settings: CheckSettings) -> float:
    """Return how much better the network takes mended rows; nothing (or less) where it is not clear."""
    if now.misfit is not None and then.misfit is not None:
        return 1 - then.misfit / max(settings.mended * now.misfit, 1e-12)
    if now.information is None or then.information is None or then.information < settings.least_information:
        return 0.0
    return then.information - now.information - settings.informed


def _swapped(now: Reaction, then: Reaction, settings: CheckSettings) -> float:
    """Return a small gain where the network is surer, row by row, with the channels swapped, or fits them better."""
    closer = 1.0
    if now.misfit is not None and then.misfit is not None:
        closer = then.misfit / max(now.misfit, 1e-12)
    if now.confidence is None or then.confidence is None:
        return 0.01 if closer < settings.closer else 0.0
    surer = then.confidence - now.confidence
    errors = float(surer.mean()) / max(float(surer.std()) / max(len(surer), 1) ** 0.5, 1e-12)
    both = errors > 1 and closer < settings.closer
    return 0.01 if both or (errors > settings.surer and closer <= 1) else 0.0


def _one_class(
    now: Reaction, reference: Reaction | None, data: Dataset, settings: CheckSettings
) -> list[Fault]:
    classes = now.classes
    if data.labels is not None and np.issubdtype(data.labels.dtype, np.integer):
        classes = data.labels[data.rows].reshape(-1)
    if classes is None or len(classes) < 8:
        return []
    top = float(np.bincount(classes - classes.min()).max() / len(classes))
    if top < settings.one_class or (reference is not None and _top(reference) >= settings.one_class):
        return []
    return [
        Fault(
            ONE_CLASS,
            f"{top:.0%} of the calibration rows are of one class: give rows of every class that the model will meet",
            {"share": top},
        )
    ]


def _top(reaction: Reaction) -> float:
    if reaction.classes is None:
        return 0.0
    return float(np.bincount(reaction.classes).max() / len(reaction.classes))
