"""What a compiled file still holds of the original: the operators that the compiler left to the processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from farrier_contracts.errors import InputError

from ...tflite.file import Operator, TfliteFile

COMPILED = "CUSTOM:edgetpu-custom-op"


def left_on_cpu(original: TfliteFile, compiled: TfliteFile) -> set[int]:
    """Return the operators of the original that are in the compiled file, too.

    The compiler keeps names, types, shapes and options of what it leaves alone. Raises InputError where the compiled
    file holds an operator that the original does not: then it was made of another model.
    """
    rest = Counter(_identity(compiled, o) for o in compiled.operators if o.name != COMPILED)
    found: set[int] = set()
    for operator in reversed(original.operators):  # of two alike, the later one is what is left
        identity = _identity(original, operator)
        if rest[identity]:
            rest[identity] -= 1
            found.add(operator.index)
    if rest.total():
        raise InputError(
            "the compiled file holds operators that the model does not: it was made of another one"
        )
    return found


def _identity(file: TfliteFile, operator: Operator) -> Hashable:
    made = tuple((t.name, t.dtype, t.shape) for t in (file.tensors[i] for i in operator.outputs))
    return operator.name, made, tuple(sorted((key, str(value)) for key, value in operator.options.items()))
