"""Compare two models: read, check, judge, look inside, and cure where asked to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from farrier_contracts import bundle
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import data as datasets
from farrier_converters import metrics
from farrier_converters import model as models
from farrier_converters.compare import CompareSettings, drop_report
from farrier_converters.model import Model

from .apply import Patient, apply
from .judge import judge
from .requantize import plan_of
from .result import Comparison

Progress = Callable[[str, float], None]
BUNDLE_SUFFIX = ".farrier"
MODEL_SUFFIX = ".onnx"


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: str | Path,
    calib: str | Path | None = None,
    metric: str | None = None,
    rows: int | None = None,
    out: str | Path | None = None,
    html: str | Path | None = None,
    progress: Progress = lambda stage, share: None,
    settings: CompareSettings | None = None,
) -> Comparison:
    """Say where model `b` differs from `a` on rows of data: outputs, layers, causes, cures.

    Both are `.onnx` files or bundles that hold one. With `out`, the cures are carried out on `a` (which must be
    float): it is quantized again, calibrated with `calib` or else with a seeded part of the data, and written to that
    file. With `html`, the report is written as a page. `rows` bounds how many rows are looked at layer by layer.
    Raises UsageError or InputError in one sentence.
    """
    settings = _settings(settings or CompareSettings(), rows)
    for path in (out, html):
        _check_folder(path)
    with _loaded(Path(a)) as first, _loaded(Path(b)) as second:
        _check_alike(Path(a), first, Path(b), second)
        dataset = datasets.load(Path(data), first.inputs)
        dataset = replace(dataset, inputs=_fixed(first, second))
        calibration = datasets.load(Path(calib), first.inputs) if calib is not None else None
        chosen = metrics.get(metric) if metric else metrics.choose(dataset.labels)
        if chosen.needs_labels and dataset.labels is None:
            raise InputError(
                f"the metric {chosen.name} needs an array 'labels' (or 'target'): {data} has none"
            )
        judged = judge(first, second, dataset, chosen, progress=_part(progress, 0.0, 0.3))
        report = drop_report(first, second, dataset, settings=settings, progress=_part(progress, 0.3, 0.5))
        notes = (*dataset.notes, *_order(first, second))
        found = Comparison(str(a), str(b), len(dataset), judged, report.to_document(), notes=notes)
        if out is not None:
            split = datasets.split(dataset, calibration)
            split = replace(split, evaluation=dataset)
            patient = Patient(first, second, split, chosen, report, judged, settings)
            found = replace(found, applied=apply(patient, Path(out), _part(progress, 0.8, 0.2)))
    if html is not None:
        from . import page

        Path(html).write_text(page.html(found), encoding="utf-8")
    return found


def _settings(settings: CompareSettings, rows: int | None) -> CompareSettings:
    if rows is None:
        return settings
    if rows < 1:
        raise UsageError(f"rows must be at least 1, not {rows}")
    return replace(settings, rows=rows)


def _order(first: Model, second: Model) -> tuple[str, ...]:
    """Say where the models seem to be the wrong way round: layers, causes and cures are those of the second."""
    if plan_of(first) is None or plan_of(second) is not None:
        return ()
    return ("the first model is quantized and the second is not: give the float model first",)


def _check_folder(path: str | Path | None) -> None:
    if path is not None and not Path(path).parent.is_dir():
        raise UsageError(f"the folder {Path(path).parent} does not exist")


@contextmanager
def _loaded(path: Path) -> Iterator[Model]:
    if path.suffix == BUNDLE_SUFFIX:
        with tempfile.TemporaryDirectory() as folder:
            stored = bundle.unpack(path, Path(folder))
            artifact = stored.manifest.artifacts[0]
            if not artifact.part.endswith(MODEL_SUFFIX):
                raise UsageError(
                    f"{path} holds {artifact.part}; only ONNX models can be compared layer by layer"
                )
            yield models.load(stored.part(artifact.part))
    elif path.suffix == ".tflite":
        raise UsageError(f"{path} is a TFLite model; only ONNX models can be compared layer by layer")
    else:
        yield models.load(path)


def _check_alike(a: Path, first: Model, b: Path, second: Model) -> None:
    one, two = ({s.name: s.datatype for s in model.inputs} for model in (first, second))
    if one != two:
        listed = [
            ", ".join(f"{name} {kind}" for name, kind in sorted(side.items())) or "none"
            for side in (one, two)
        ]
        raise InputError(f"the models take different inputs: {a} takes {listed[0]}, {b} takes {listed[1]}")


def _fixed(first: Model, second: Model) -> tuple:
    """Return the inputs with every dimension that either model fixes; raises InputError where they contradict."""
    merged = []
    for one in first.inputs:
        two = next(s for s in second.inputs if s.name == one.name)
        if len(one.shape) != len(two.shape) or any(
            x != y and x > 0 and y > 0 for x, y in zip(one.shape, two.shape, strict=True)
        ):
            raise InputError(
                f"the models take input {one.name!r} in different shapes: {list(one.shape)} and {list(two.shape)}"
            )
        merged.append(replace(one, shape=tuple(max(x, y) for x, y in zip(one.shape, two.shape, strict=True))))
    return tuple(merged)


def _part(progress: Progress, start: float, span: float) -> Progress:
    return lambda stage, share: progress(stage, start + span * share)
