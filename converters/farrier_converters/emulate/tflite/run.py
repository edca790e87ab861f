"""A whole TFLite network, operator by operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import InputError

from ...tflite.file import Operator, TfliteFile
from .call import Call, KernelError, zero_point
from .kernels import KERNELS, Kernel

NAME_LENGTH = 80  # of a tensor, in a sentence
WRONG = (KernelError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Step:
    """An operator and what it computed, one array for each output."""

    operator: Operator
    outputs: tuple[np.ndarray, ...]


def run(file: TfliteFile, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of a network of 8-bit integers by name, exactly as TFLite's reference kernels compute them.

    `feeds` are the inputs by name, in the types and axes of the file (NHWC images); another batch than the file's goes
    where the network does not fix it. States of recurrent layers start at zero in every run. Raises InputError for
    feeds that do not fit and for an operator without a kernel.
    """
    values: dict[int, np.ndarray] = {}
    uses = Counter(index for operator in file.operators for index in operator.inputs)
    uses.update(file.outputs)
    for step in _steps(file, feeds, values):
        for index in step.operator.inputs:
            uses[index] -= 1
            if not uses[index]:
                values.pop(index, None)
    return {file.tensors[index].name: _value(file, values, index, "the output") for index in file.outputs}


def steps(file: TfliteFile, feeds: Mapping[str, np.ndarray]) -> Iterator[Step]:
    """Yield the operators in order, each with what it computed; as `run`, but every tensor is seen."""
    return _steps(file, feeds, {})


def compute(
    file: TfliteFile, operator: Operator, values: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, ...]:
    """Return what one operator computes of these inputs, one array for each output; raises InputError."""
    kernel = _kernel(file, operator)
    outputs = tuple(file.tensors[i] for i in operator.outputs)
    try:
        if not outputs:
            raise KernelError("it has no output")
        found = kernel(call_of(file, operator, values))
    except WRONG as error:
        raise InputError(f"the emulation cannot compute {_place(file, operator)}: {error}") from None
    arrays = tuple(found) if isinstance(found, (list, tuple)) else (np.asarray(found),)
    if len(arrays) != len(outputs) or any(a.dtype != t.dtype for a, t in zip(arrays, outputs, strict=True)):
        raise InputError(f"the outputs of {_place(file, operator)} do not have the types that it computes")
    return arrays


def _kernel(file: TfliteFile, operator: Operator) -> Kernel:
    kernel = KERNELS.get(operator.name)
    if kernel is None:
        raise InputError(f"the emulation has no kernel for {_place(file, operator)}")
    return kernel


def call_of(file: TfliteFile, operator: Operator, values: Sequence[np.ndarray | None]) -> Call:
    """Return an operator with its inputs and what the file says of its tensors."""
    inputs = tuple(file.tensors[i] if i >= 0 else None for i in operator.inputs)
    outputs, inner = (
        tuple(file.tensors[i] for i in side) for side in (operator.outputs, operator.intermediates)
    )
    return Call(operator, inputs, tuple(values), outputs, inner)


def _steps(
    file: TfliteFile, feeds: Mapping[str, np.ndarray], values: dict[int, np.ndarray]
) -> Iterator[Step]:
    for operator in file.operators:
        _kernel(file, operator)  # before anything is computed
    values.update(_fed(file, feeds))
    for operator in file.operators:
        inputs = [
            _value(file, values, i, _place(file, operator)) if i >= 0 else None for i in operator.inputs
        ]
        outputs = compute(file, operator, inputs)
        values.update(zip(operator.outputs, outputs, strict=True))
        yield Step(operator, outputs)


def _fed(file: TfliteFile, feeds: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    found = {}
    for index in file.inputs:
        tensor = file.tensors[index]
        if tensor.name not in feeds:
            raise InputError(f"no array for the input {tensor.name!r}")
        array = np.asarray(feeds[tensor.name])
        if array.dtype != tensor.dtype or array.ndim != len(tensor.shape):
            raise InputError(
                f"the input {tensor.name!r} is {tensor.dtype} of shape {list(tensor.shape)},"
                f" not {array.dtype} of shape {list(array.shape)}"
            )
        found[index] = array
    return found


def _value(file: TfliteFile, values: Mapping[int, np.ndarray], index: int, reader: str) -> np.ndarray:
    tensor = file.tensors[index]
    if index in values:
        return values[index]
    if tensor.sparse:
        raise InputError(f"the tensor {tensor.name!r} is sparse, which the emulation does not read")
    if tensor.data is None and tensor.variable:
        return np.full(tensor.shape, zero_point(tensor), tensor.dtype)
    if tensor.data is None:
        raise InputError(f"{reader} needs the tensor {tensor.name!r}, which nothing computes")
    return tensor.data


def _place(file: TfliteFile, operator: Operator) -> str:
    names = [file.tensors[index].name[:NAME_LENGTH] for index in operator.outputs[:1]]
    return f"operator {operator.index}, {operator.name}" + "".join(f" ({name})" for name in names)
