"""The node cases of the ONNX backend suite as TFLite files: import, convert, run in LiteRT, compare with the answers.

    python -m benchmarks.tflite.backend_suite [--failures]

Inputs that are not of floats become constants of the file where its shapes hang on them (axes, sizes, paddings): a
TFLite file's shapes are fixed when it is made. How many cases need that is printed.

A float case is one whose inputs and outputs are all of float32, int64, int32 or bool, at least one of them of float32,
whose arrays all have elements and at most eight axes, and whose answers ONNX Runtime itself gives. Expanded copies
(an operator written out in others) count as well. The figure is the share of these that LiteRT answers within the
suite's own tolerance.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from farrier_contracts.errors import FarrierError
from farrier_converters.compilers.tflite import Code, ConversionError, convert
from farrier_converters.compilers.tflite.ops import HANDLERS
from farrier_converters.compilers.tflite.refusals import LIMITS
from farrier_converters.graph import run
from farrier_converters.graph.bind import bind
from farrier_converters.measure import Child, EngineFailure
from farrier_converters.model import Model, load
from farrier_converters.tflite.file import TfliteFile
from farrier_converters.tflite.write import write

from ..figure import emit

KINDS = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
ABSOLUTE = 1e-5  # added to the suite's relative 1e-3: its own 1e-7 asks for the last bit of numbers near zero
GOAL = 0.85


@dataclass(frozen=True)
class Result:
    """What became of a case. `state` is right, wrong, refused (with a code) or failed (by the engine, or a bug)."""

    name: str
    op: str
    state: str
    code: str = ""
    message: str = ""
    used: tuple[str, ...] = ()  # the file's operators
    fixed: tuple[str, ...] = ()  # inputs that the file holds as constants
    free: bool = False  # whether the file takes any number of rows


@dataclass(frozen=True)
class Case:
    """One case of the suite that ONNX Runtime passes."""

    name: str
    op: str
    model: Model
    feeds: dict[str, np.ndarray]
    expected: list[np.ndarray]
    tolerance: float


def cases(folder: Path) -> Iterator[Case]:
    """Yield the float cases."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic divides by zero on purpose
        found = collect_testcases(None)
    for item in sorted(found, key=lambda case: case.name):
        case = _case(item, folder)
        if case is not None:
            yield case


def _case(item: Any, folder: Path) -> Case | None:
    graph = item.model.graph
    ends = [*graph.input, *graph.output]
    if not all(v.type.HasField("tensor_type") and v.type.tensor_type.elem_type in KINDS for v in ends):
        return None
    if all(v.type.tensor_type.elem_type != KINDS[0] for v in ends):
        return None
    inputs, expected = item.data_sets[0]
    if not all(np.asarray(array).size for array in (*inputs, *expected)):
        return None
    path = folder / "case.onnx"
    path.write_bytes(item.model.SerializeToString())
    try:
        model = load(path)
        feeds = {spec.name: np.array(a) for spec, a in zip(model.inputs, inputs, strict=True)}
        answers = run.once(model.proto, {name: array.copy() for name, array in feeds.items()})
    except (FarrierError, ValueError):
        return None
    expected = [np.asarray(array) for array in expected]
    if not _agree(answers, expected, item.rtol):
        return None
    base = item.name.split("_expanded")[0]
    op = graph.node[0].op_type if len(graph.node) == 1 else f"{base.removeprefix('test_')} (expanded)"
    return Case(item.name, op, model, feeds, expected, item.rtol)


def _agree(found: Sequence[Any], expected: Sequence[np.ndarray], tolerance: float) -> bool:
    return len(found) == len(expected) and all(
        np.shape(a) == e.shape
        and np.asarray(a).dtype == e.dtype
        and np.allclose(a, e, rtol=tolerance, atol=ABSOLUTE, equal_nan=True)
        for a, e in zip(found, expected, strict=True)
    )


def results(chosen: Iterator[Case] | Sequence[Case], folder: Path) -> Iterator[Result]:
    """Convert and run each case; one LiteRT process serves all until a file takes it down."""
    child: Child | None = None
    try:
        for case in chosen:
            path = folder / "case.tflite"
            try:
                file, options, fixed = _converted(case)
            except ConversionError as error:
                first = error.failures[0]
                yield Result(case.name, case.op, "refused", first.code.value, f"{first.op}: {first.message}")
                continue
            except FarrierError as error:
                yield Result(case.name, case.op, "refused", "", str(error))
                continue
            path.write_bytes(write(file))
            free = any(-1 in file.tensors[index].signature for index in file.inputs)
            used = tuple(dict.fromkeys(operator.name for operator in file.operators))
            try:
                if child is None:
                    child = Child(path, "litert", options=options)
                    child.open()
                else:
                    child.load(path, options=options)
                found = child.run({k: v for k, v in case.feeds.items() if k not in fixed})
            except EngineFailure as error:
                if child is not None:
                    child.close()
                child = None
                yield Result(case.name, case.op, "failed", "TFL007", str(error), used, free=free)
                continue
            answers = [found.get(spec.name) for spec in case.model.outputs]
            right = _agree(answers, case.expected, case.tolerance)
            state = "right" if right else "wrong"
            yield Result(case.name, case.op, state, used=used, fixed=tuple(fixed), free=free)
    finally:
        if child is not None:
            child.close()


def _converted(case: Case) -> tuple[TfliteFile, dict[str, Any], set[str]]:
    """Convert; where a shape hangs on an input, all inputs that are not of floats become constants of the file.

    If that is not enough (the scales of a Resize), all but the first do.
    """
    steering = {name: array for name, array in case.feeds.items() if array.dtype != np.float32}
    others = dict(list(case.feeds.items())[1:])
    for fixed in ({}, steering):
        try:
            return *convert(bind(case.model, fixed) if fixed else case.model), set(fixed)
        except ConversionError as error:
            late = {failure.code for failure in error.failures} & {Code.SHAPE, Code.VALUE}
            if not late:
                raise
    return *convert(bind(case.model, others)), set(others)


def page(found: Sequence[Result]) -> str:
    """Return the page that says of each operator how it becomes TFLite; its tables come from handlers and the suite."""
    plain = [r for r in found if "(expanded)" not in r.op]
    rows = []
    for op in sorted({*HANDLERS, *UNROLLED, *(r.op for r in plain)}):
        cases_of = [r for r in plain if r.op == op]
        right = [r for r in cases_of if r.state == "right"]
        used = ", ".join(sorted({name for r in right for name in r.used}))
        codes = Counter(r.code for r in cases_of if r.state != "right")
        refused = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
        count = f"{len(right)} of {len(cases_of)}" if cases_of else "no float case"
        rows.append(
            f"| {op} | {_state(op, bool(right))} | {count} | {refused} | {LIMITS.get(op, '')} | {used} |"
        )
    right = sum(r.state == "right" for r in found)
    fixed = sum(r.state == "right" and bool(r.fixed) for r in found)
    return PAGE.format(
        version=onnx.__version__,
        total=len(found),
        right=right,
        share=100 * right / len(found),
        fixed=fixed,
        codes="\n".join(f"| {code.value} | {REASONS[code]} |" for code in Code),
        rows="\n".join(rows),
    )


def _state(op: str, right: bool) -> str:
    if op in HANDLERS:
        return "yes"
    if op in UNROLLED:
        return "written out"
    return "by its definition" if right else "no"


UNROLLED = ("If", "Loop", "Scan")
REASONS = {
    Code.OPERATOR: "the operator has no counterpart",
    Code.ATTRIBUTE: "a mode, an attribute or a combination of inputs has none",
    Code.DTYPE: "TFLite's kernels do not take the element type",
    Code.SHAPE: "a shape is only known when the graph runs, or has no elements",
    Code.RANK: "there are more axes, or fewer, than the kernels take",
    Code.VALUE: "an input that has to be constant is computed",
    Code.ENGINE: "LiteRT itself refuses the file",
    Code.NODE: "the node contradicts its operator's definition, or the tensors that it reads",
}
PAGE = """# ONNX operators in TFLite files

Made by `python -m benchmarks.tflite.backend_suite --page docs/onnx-to-tflite-ops.md`; do not edit by hand.

The compiler writes TFLite files from ONNX graphs itself. Each operator below was tried on the node cases of the backend
suite that comes with onnx {version}: those whose inputs and outputs are of float32, int64, int32 or bool, at least one
of them of float32, and whose answers ONNX Runtime itself gives. LiteRT answers {right} of {total} of them as the suite
asks ({share:.1f} %), copies written out in other operators included, and no case wrongly: the rest is refused, with a
code and the operator. In {fixed} of the right ones inputs that steer shapes (axes, sizes, paddings) are constants of
the file, since a TFLite file's shapes are fixed when it is made; only the batch may stay free.

Inputs and outputs keep the element types of the model; constants that steer operators (axes, places, sizes) become
int32.

| state | meaning |
|---|---|
| yes | operators of TFLite, one or several; every composition is exact to float32 rounding |
| by its definition | ONNX defines it by other operators, which are converted in its place |
| written out | a branch that is always taken, or a loop of known length, becomes its operators |
| no | refused |

| code | what is missing |
|---|---|
{codes}

| operator | state | cases right | refused | limits | operators of TFLite |
|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--failures", action="store_true", help="print every case that is not right")
    arguments.add_argument("--page", type=Path, help="write the page of operators to this file")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = list(results(cases(folder), folder))
    if given.page:
        given.page.write_text(page(found))
    counts = Counter((r.state, r.code, r.op) for r in found if r.state != "right")
    for (state, code, op), count in sorted(counts.items()):
        print(f"{state:8} {code:7} {op:40} {count}")
    if given.failures:
        for result in found:
            if result.state != "right":
                print(f"{result.name}: {result.state} {result.code} {result.message}")
    states = Counter(result.state for result in found)
    fixed = sum(result.state == "right" and bool(result.fixed) for result in found)
    print(
        f"{len(found)} float cases: {dict(states)}; of the right ones {fixed} with inputs held as constants"
    )
    emit("tflite_backend_suite", states["right"] / len(found), goal=GOAL, unit="share of float cases right")


if __name__ == "__main__":
    main()
