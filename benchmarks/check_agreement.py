"""Whether `farrier check` says what compilers and engines do, operator by operator.

    python benchmarks/check_agreement.py [--shared-data ../shared/data]

Every file that Google's Edge TPU compiler made is held against the prediction for the file that it was made of; every
TFLite file that LiteRT loads, against what it hands to XNNPACK. The figure is the share of operators that the rules of
the Edge TPU place where the compiler did.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from figure import emit

from farrier_contracts.errors import InputError
from farrier_converters.check import rules
from farrier_converters.compilers.edgetpu import left_on_cpu
from farrier_converters.tflite.file import TfliteFile, read

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 1 << 30
COMPILED = "_edgetpu.tflite"


def load(path: Path) -> TfliteFile:
    return read(path, max_bytes=MAX_BYTES)


def accelerated(name: str, file: TfliteFile) -> set[int]:
    found = rules.of_tflite(name)
    return {i for i, placement in enumerate(found.place(file)) if placement.unit == found.unit}


def delegated(file: TfliteFile, path: Path) -> set[int]:
    """Return the operators between the inputs and outputs of what LiteRT made of them."""
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_path=str(path))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    folder = parser.parse_args().shared_data
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
            theirs = delegated(file, path)
        except (InputError, ValueError, RuntimeError) as error:
            print(f"XNNPACK   {path.name:50} not loaded: {str(error).splitlines()[0][:80]}")
            continue
        compare("XNNPACK", path, accelerated("xnnpack", file), theirs, len(file.operators))
    emit("check_agreement_edgetpu", right / total, goal=1.0, unit="share of operators")


if __name__ == "__main__":
    main()
