"""Whether `farrier check` says what compilers and engines do, operator by operator.

    python -m benchmarks.toolchains.check_agreement [--shared-data ../shared/data] [--suite]

Every file that Google's Edge TPU compiler made is held against the prediction for the file that it was made of; every
TFLite file that LiteRT loads, against what it hands to XNNPACK. The figure is the share of operators that the rules of
the Edge TPU place where the compiler did. With --suite, every case of the ONNX backend suite that becomes a TFLite file
is held against LiteRT, too (minutes).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_converters.check import rules
from farrier_converters.compilers.edgetpu import left_on_cpu
from farrier_converters.compilers.tflite import lower_model
from farrier_converters.model import from_proto
from farrier_converters.tflite.file import TfliteFile, read
from farrier_converters.tflite.write import write

from ..figure import emit

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 1 << 30
COMPILED = "_edgetpu.tflite"


def load(path: Path) -> TfliteFile:
    return read(path, max_bytes=MAX_BYTES)


def accelerated(name: str, file: TfliteFile) -> set[int]:
    found = rules.of_tflite(name)
    return {i for i, placement in enumerate(found.place(file)) if placement.unit == found.unit}


def delegated(file: TfliteFile, content: bytes) -> set[int]:
    """Return the operators between the inputs and outputs of what LiteRT made of them."""
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_content=content)
    engine.allocate_tensors()
    makers = {name: operator for operator in file.operators for name in operator.outputs}
    found: set[int] = set()
    for node in engine._get_ops_details():
        given, wanted = set(map(int, node["inputs"])), list(map(int, node["outputs"]))
        while node["op_name"] == "DELEGATE" and wanted:
            maker = makers.get(wanted.pop())
            if maker is not None and maker.index not in found:
                found.add(maker.index)
                wanted += [name for name in maker.inputs if name not in given]
    return found


def compare(title: str, path: Path, ours: set[int], theirs: set[int], count: int) -> tuple[int, int]:
    wrong = sorted(ours ^ theirs)
    print(
        f"{title:9} {path.name:50} {count:4} operators, {len(theirs):4} accelerated, wrong: {wrong or 'none'}"
    )
    return count - len(wrong), count


def apart(file: TfliteFile, content: bytes) -> set[int] | None:
    """Ask LiteRT in a process of its own, which some files take down; None where it loads nothing."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(RuntimeError, ValueError):
            os.write(sending, json.dumps(sorted(delegated(file, content))).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return set(json.loads(said)) if said else None


def suite() -> None:
    """Compare operator by operator over what the ONNX backend suite becomes."""
    from onnx.backend.test.case.node import collect_testcases

    right = total = files = 0
    for case in collect_testcases(None):
        assert case.model is not None
        try:
            file = lower_model(from_proto(case.model, case.name)).file
        except InputError:
            continue
        theirs = apart(file, write(file))
        if theirs is not None:
            wrong = accelerated("xnnpack", file) ^ theirs
            files, right, total = (
                files + 1,
                right + len(file.operators) - len(wrong),
                total + len(file.operators),
            )
            for index in sorted(wrong):
                print(
                    f"XNNPACK   {case.name}: operator {index} ({file.operators[index].name}) is placed wrongly"
                )
    print(
        f"XNNPACK   {right} of {total} operators of {files} files of the backend suite: {right / total:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--suite", action="store_true")
    options = parser.parse_args()
    folder = options.shared_data
    right = total = 0
    for compiled in sorted(folder.rglob(f"*{COMPILED}")):
        path = compiled.with_name(compiled.name.replace(COMPILED, ".tflite"))
        file = load(path)
        count = len(file.operators)
        theirs = set(range(count)) - left_on_cpu(file, load(compiled))
        same, of = compare("Edge TPU", path, accelerated("edgetpu", file), theirs, count)
        right, total = right + same, total + of
    for path in sorted(folder.rglob("*.tflite")):
        try:
            file = load(path)
            theirs = delegated(file, path.read_bytes())
        except (InputError, ValueError, RuntimeError) as error:
            print(f"XNNPACK   {path.name:50} not loaded: {str(error).splitlines()[0][:80]}")
            continue
        compare("XNNPACK", path, accelerated("xnnpack", file), theirs, len(file.operators))
    if options.suite:
        suite()
    emit("check_agreement_edgetpu", right / total, goal=1.0, unit="share of operators")


if __name__ == "__main__":
    main()
