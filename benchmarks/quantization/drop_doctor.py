"""Does `farrier compare` name planted faults, and does its cure work; does the calibration check see corrupted rows.

    python -m benchmarks.quantization.drop_doctor [--seed 0] [--shared-data ../shared/data] [--only NAME]

Ten kinds of faults are planted by `faults/` into five networks (ResNet20, ResNet56, UltraFace, the demo's digits,
a perceptron trained here on MNIST-1D), two networks to each fault, chosen by the seed, as are layers and sizes. Named
right means: the first cause that is reported is the planted one, at the planted layer. A fault must
cost something: four times the squared error of the same network in sound INT8. The cure counts by the share that it
brings back: of the lost metric, or of what the fault took from the outputs' signal against that sound INT8.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

import farrier
from farrier_converters import data, model, npz
from farrier_converters.calibration_check import check
from farrier_converters.graph import run

from ..figure import emit
from . import faults
from .faults import FAULTS, Planted
from .faults.subjects import SUBJECTS, Subject

ROOT = Path(__file__).resolve().parents[2]
CONVOLUTIONS = ("clash",)  # faults that need two convolutions in a row
COSTS = 4.0  # times the squared error of sound INT8: less is no fault
TRIES = 6
NETWORKS = 2  # that each fault is planted in
GOAL = 9


def named(cause: dict, truth: Planted) -> bool:
    """Whether a reported cause is the planted one, at its layer (a fault of all layers has none)."""
    right = cause["cause"] in truth.causes
    return right and (not truth.layers or bool({cause["layer"], cause["tensor"]} & set(truth.layers)))


def distance(a: model.Model, b: model.Model, rows: data.Dataset) -> float:
    """Return the outputs' squared error over their squared size, the worst output's."""
    sessions = [run.session(m.proto) for m in (a, b)]
    errors: dict[int, list[float]] = {}
    for feeds, _ in rows.batches(rows.fixed_batch or 32):
        for index, (x, y) in enumerate(zip(*(s.run(None, feeds) for s in sessions), strict=True)):
            sums = errors.setdefault(index, [0.0, 0.0])
            sums[0] += float(np.square(x.astype(np.float64) - y).sum())
            sums[1] += float(np.square(x.astype(np.float64)).sum())
    return max(error / max(signal, 1e-30) for error, signal in errors.values())


def plant(subject: Subject, fault: str, seed: int) -> tuple[Planted, float, float] | None:
    """Plant a fault that costs something: the first of a few whose outputs are `COSTS` times as wrong as sound INT8's.

    Returns it with the outputs' distance in sound INT8 and with the fault, or None where none of a few costs that much.
    """
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        truth = FAULTS[fault](subject.model, subject.calibration, rng)
        rows = data.load(subject.rows, truth.a.inputs)
        rows = rows.take(rows.rows[:64])
        sound = distance(subject.model, faults.quantized(subject.model, subject.calibration), rows)
        faulty = distance(truth.a, truth.b, rows)
        if faulty >= COSTS * sound:
            return truth, sound, faulty
    return None


def examine(
    subject: Subject, fault: str, found_fault: tuple[Planted, float, float], folder: Path
) -> tuple[bool, float, str]:
    """Ask for causes and cure of a planted fault; returns (named right, recovered, what was said)."""
    truth, sound, faulty = found_fault
    paths = [folder / f"{subject.name}-{fault}-{side}.onnx".replace(" ", "-") for side in ("a", "b")]
    for path, side in zip(paths, (truth.a, truth.b), strict=True):
        onnx.save(side.proto, path)
    found = farrier.compare(*paths, data=subject.rows, calib=subject.calib, out=folder / "cured.onnx")
    causes = found.report["causes"]
    said = f"{causes[0]['cause']} in {causes[0]['layer']}" if causes else "nothing"
    applied = found.applied
    assert applied is not None
    rows = data.load(subject.rows, truth.a.inputs)
    cured = distance(truth.a, model.load(folder / "cured.onnx"), rows.take(rows.rows[:64]))
    signal = (faulty - cured) / max(faulty - sound, 1e-30)
    recovered = signal if applied.recovered is None else max(signal, applied.recovered)
    figures = f"{applied.before.b:.4f} -> {applied.after.b:.4f} of {applied.before.a:.4f}"
    figures += f", {applied.before.snr_db:.1f} -> {applied.after.snr_db:.1f} dB"
    wanted = "" if not causes or named(causes[0], truth) else f" [planted in {', '.join(truth.layers[:2])}]"
    return bool(causes) and named(causes[0], truth), recovered, f"{said}; {figures}{wanted}"


def corruptions(rows: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (kind that should be said, corrupted rows); channels and layout where rows have colours."""
    colours = rows.ndim == 4 and rows.shape[1] == 3
    yield "mean", rows + rng.choice([-2, 2]) * rows.std()
    yield "scale", rows * rng.choice([255, 1 / 255])
    yield "noise", rng.normal(rows.mean(), rows.std(), rows.shape)
    yield "too few samples", rows[: int(rng.integers(2, 9))]
    if colours:
        yield "layout", np.ascontiguousarray(rows.transpose(0, 2, 3, 1)).reshape(rows.shape)
        yield "channel order", np.ascontiguousarray(rows[:, ::-1])


def one_class(subject: Subject, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the evaluation rows of one class, where there are labels."""
    arrays = npz.read(subject.rows)
    labels = arrays.get("labels")
    if labels is not None:
        name = subject.model.inputs[0].name
        yield "one class only", arrays[name][labels == rng.integers(labels.max() + 1)]


def check_rows(subject: Subject, rng: np.random.Generator) -> tuple[int, int, bool]:
    """Return (corruptions found, corruptions, whether clean rows pass), by the network and the rows alone."""
    name, inputs = subject.model.inputs[0].name, subject.model.inputs
    clean = subject.calibration.arrays[name]
    found = total = 0

    def kinds(rows: np.ndarray) -> set[str]:
        given = data.from_arrays({name: rows.astype(np.float32)}, inputs, source=subject.calib)
        return {fault.kind for fault in check(subject.model, given)}

    for kind, rows in (*corruptions(clean, rng), *one_class(subject, rng)):
        said = kinds(rows)
        total, found = total + 1, found + (kind in said)
        if kind not in said:
            print(f"{subject.name:10} {kind} NOT FOUND, said: {', '.join(said) or 'nothing'}", flush=True)
    return found, total, not kinds(clean)


def examine_calibration(subjects: list[Subject], rng: np.random.Generator) -> None:
    """Corrupt calibration rows of every network, count what is found, and clean sets that are flagged."""
    results = [check_rows(s, rng) for s in subjects]
    found, total = sum(r[0] for r in results), sum(r[1] for r in results)
    flagged = sum(not r[2] for r in results)
    print(f"{found} of {total} corruptions found, {flagged} of {len(results)} clean sets flagged")
    emit("calibration_check", found / total, goal=0.9, unit="of corruptions found")
    emit("calibration_check_clean", flagged, goal=0, unit="clean sets flagged", at_most=True)


def main() -> None:
    """Plant, ask, count."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", choices=list(FAULTS))
    arguments.add_argument("--calibration", action="store_true", help="the calibration check alone")
    options = arguments.parse_args()
    rng = np.random.default_rng(options.seed)
    right, cured, planted = 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subjects = [s for make in SUBJECTS for s in make(options.shared_data, folder)]
        if options.only is None:
            examine_calibration(subjects, rng)
        if options.calibration:
            return
        for fault in FAULTS:
            fit = [s for s in subjects if s.convolutions or fault not in CONVOLUTIONS]
            order, seeds = rng.permutation(len(fit)), rng.integers(1 << 30, size=len(fit))
            if options.only not in (None, fault):
                continue
            costly = (
                (one, found)
                for one, seed in ((fit[i], int(s)) for i, s in zip(order, seeds, strict=True))
                if (found := plant(one, fault, seed)) is not None
            )
            for one, found in itertools.islice(costly, NETWORKS):
                ok, recovered, said = examine(one, fault, found, folder)
                planted, right, cured = planted + 1, right + ok, cured + (recovered >= 0.9)
                verdict = "named" if ok else "MISSED"
                print(f"{fault:18} {one.name:10} {verdict:6} recovered {recovered:5.1%}  {said}", flush=True)
    print(f"{right} of {planted} named right, {cured} of {planted} cured by 90 % or more")
    emit("drop_doctor", 10 * right / max(planted, 1), goal=GOAL, unit="of 10 faults named right")
    emit("drop_doctor_cured", 10 * cured / max(planted, 1), goal=GOAL, unit="of 10 faults cured by 90 %")


if __name__ == "__main__":
    main()
