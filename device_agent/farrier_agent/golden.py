"""The golden check: a loaded model must give the outputs that its bundle promises before it goes live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from farrier_contracts.bundle import Golden, StoredBundle
from farrier_contracts.errors import BundleError
from farrier_contracts.tensors import TensorSpec

from .arrays import read_npz, worst_excess

Arrays = Dict[str, np.ndarray]
Run = Callable[[Arrays], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """One set of inputs with the outputs that belong to it."""

    inputs: Arrays
    outputs: Arrays


def check(bundle: StoredBundle, run: Run) -> int:
    """Run all golden cases and return how many there were; BundleError names the output that is worst."""
    golden = bundle.manifest.golden
    if golden is None:
        return 0
    cases = list(read_cases(bundle, golden))
    worst: Tuple[float, str, int] = (0.0, "", 0)
    for number, case in enumerate(cases):
        outputs = run(case.inputs)
        for name, want in case.outputs.items():
            excess = worst_excess(outputs[name], want, atol=golden.atol.get(name, 0.0), rtol=golden.rtol)
            worst = max(worst, (excess, name, number))
    excess, name, number = worst
    if excess > 0:
        raise BundleError(
            f"the golden check failed: output {name!r} of case {number} is {excess:.3g} outside its tolerance "
            "on this device: build the bundle for this device"
        )
    return len(cases)


def read_cases(bundle: StoredBundle, golden: Golden) -> Iterator[Case]:
    """Yield the cases; raises BundleError where the file does not fit the manifest."""
    arrays = read_npz(bundle.part(golden.part))
    manifest = bundle.manifest
    inputs = _columns(arrays, "in.", manifest.inputs)
    outputs = _columns(arrays, "out.", manifest.outputs)
    counts = {len(array) for array in (*inputs.values(), *outputs.values())}
    if len(counts) != 1:
        raise BundleError("the golden arrays disagree about the number of cases: build the bundle again")
    for number in range(counts.pop()):
        yield Case(_row(inputs, manifest.inputs, number), _row(outputs, manifest.outputs, number))


def first_inputs(bundle: StoredBundle, part: str) -> Arrays:
    """Return the first set of inputs of a part such as the warm-up's: arrays `NAME` or `in.NAME`, one row per case."""
    specs = bundle.manifest.inputs
    named = {f"in.{spec.name}" for spec in specs}
    arrays = {
        name if name in named else f"in.{name}": array for name, array in read_npz(bundle.part(part)).items()
    }
    return _row(_columns(arrays, "in.", specs), specs, 0)


def _columns(arrays: Arrays, prefix: str, specs: Sequence[TensorSpec]) -> Arrays:
    found = {spec.name: arrays[prefix + spec.name] for spec in specs if prefix + spec.name in arrays}
    if len(found) != len(specs):
        missing = next(spec.name for spec in specs if spec.name not in found)
        raise BundleError(f"the golden arrays lack {prefix + missing!r}: build the bundle again")
    for spec in specs:
        if found[spec.name].ndim not in (len(spec.shape), len(spec.shape) + 1) or not found[spec.name].ndim:
            raise BundleError(
                f"the golden array {prefix + spec.name!r} has a wrong rank: build the bundle again"
            )
    return found


def _row(arrays: Arrays, specs: Sequence[TensorSpec], number: int) -> Arrays:
    """Cut one case out: one row of an array of the tensor's own rank, one whole tensor of an array a rank higher."""
    return {
        spec.name: np.asarray(arrays[spec.name][number])  # a tensor without axes would become a plain scalar
        if arrays[spec.name].ndim > len(spec.shape)
        else arrays[spec.name][number : number + 1]
        for spec in specs
    }
