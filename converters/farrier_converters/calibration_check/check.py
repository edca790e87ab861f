"""The check itself: evidence from rows, from the network, and from evaluation rows; at most a few sentences."""

from __future__ import annotations

import numpy as np

from ..data import RANDOM, Dataset
from ..graph import run
from ..model import Model
from .answers import like_noise, one_class, swapped
from .faults import FEW, NOISE, CheckSettings, Fault
from .hypotheses import CHANNELS, LAYOUT, MEAN, SCALE, SHUFFLED, Hypothesis, channel_axis, hypotheses
from .network import Listener, Reaction
from .smoothness import smoothness


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
        if other is None and (smooth := smoothness(rows)) is not None and smooth < settings.noisy:
            shuffled = listener.react(_batches(calibration, name, settings, SHUFFLED))
            if like_noise(now, shuffled, settings):
                return [*found, _noise_fault(smooth)]
        alike = other is not None  # moments that agree with the evaluation rows' leave channels to ask about
        heard = compared or _heard(listener, calibration, name, rows, now, settings, channels_only=alike)
        reference = None
        if evaluation is not None and other is not None:
            reference = listener.react(_batches(evaluation, name, settings, None))
    except run.runtime_errors():
        return [*found, *compared]
    return [*found, *heard, *([] if heard else one_class(now, reference, calibration, settings))]


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
    return [_noise_fault(smooth)]


def _noise_fault(smooth: float) -> Fault:
    text = f"calibration rows look like noise (neighbours correlate by {smooth:.2f}): give real inputs"
    return Fault(NOISE, text, {"smoothness": smooth})


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
        gain = swapped(now, then, settings) if hypothesis.kind == CHANNELS else _gain(now, then, settings)
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
