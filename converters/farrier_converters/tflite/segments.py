"""Cut a TFLite file into segments that run one after another, each a file of its own: a pipeline of accelerators.

A pipeline hands each segment's outputs to the next one alone. So a cut is legal where every tensor that crosses it is
read by the segment behind it and by no later one, the first segment reads all inputs, and the last one makes all
outputs (google-coral/libcoral, coral/pipeline/pipelined_model_runner.h).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from farrier_contracts.errors import InputError, UsageError

from . import schema
from .file import Operator, TfliteFile

HYBRID = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL", "UNIDIRECTIONAL_SEQUENCE_LSTM")
_WITHHELD = """
LSTM BIDIRECTIONAL_SEQUENCE_LSTM RNN UNIDIRECTIONAL_SEQUENCE_RNN BIDIRECTIONAL_SEQUENCE_RNN SVDF LSH_PROJECTION
SKIP_GRAM EMBEDDING_LOOKUP_SPARSE SPARSE_TO_DENSE FAKE_QUANT UNIQUE L2_POOL_2D CONV_3D_TRANSPOSE CALL CALL_ONCE IF
WHILE BUCKETIZE RANDOM_UNIFORM RANDOM_STANDARD_NORMAL MULTINOMIAL HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT
HASHTABLE_SIZE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE
"""
WITHHELD = frozenset(_WITHHELD.split())  # their options, or the graphs and tables they refer to, are not read
Cost = Callable[[int, int], float]  # of the operators from the first number up to, and without, the second


@dataclass(frozen=True)
class Cuts:
    """Where a file can be cut. A segment that begins at `start` has to reach beyond operator `reach[start]`."""

    reach: tuple[
        int, ...
    ]  # by operator: -1 where anything may follow, the number of operators where it cannot begin
    last: int  # the latest operator that the last segment may begin with


def cuts(file: TfliteFile) -> Cuts:
    """Return where a file can be cut."""
    count = len(file.operators)
    made, first, last = _lives(file)
    reach = [-1] * count
    for name, end in last.items():
        tensor = file.tensors[name]
        if tensor.variable:  # a state lives inside of one segment
            for start in range(first[name] + 1, end + 1):
                reach[start] = count
        elif name in made:
            for start in range(made[name] + 1, end + 1):
                reach[start] = max(reach[start], end)
        elif tensor.data is None:  # an input of the whole
            reach[0] = max(reach[0], end)
    outputs = [made[name] for name in file.outputs if name in made]
    return Cuts(tuple(reach), min(outputs, default=0))


def balanced(file: TfliteFile, parts: int, cost: Cost) -> list[int]:
    """Return where to begin each segment so that the dearest one costs least; raises UsageError where there is no way.

    Dynamic programming over legal cuts: `best[k][start]` is the dearest of k segments from `start` to the end.
    """
    allowed, count = cuts(file), len(file.operators)
    if parts < 1:
        raise UsageError(f"a model is cut into 1 segment or more, not {parts}")
    best: list[dict[int, float]] = [{}]
    begin: list[dict[int, int]] = [{}]
    best.append(
        {start: cost(start, count) for start in range(allowed.last + 1) if allowed.reach[start] < count}
    )
    begin.append({})
    for _ in range(2, parts + 1):
        dearest: dict[int, float] = {}
        following: dict[int, int] = {}
        for start in range(count):
            options = [
                (max(cost(start, stop), rest), stop)
                for stop, rest in best[-1].items()
                if stop > max(start, allowed.reach[start])
            ]
            if options:
                dearest[start], following[start] = min(options)
        best.append(dearest)
        begin.append(following)
    if 0 not in best[parts]:
        raise UsageError(
            f"the model cannot be cut into {parts} segments that hand their outputs to the next one alone"
        )
    starts = [0]
    for left in range(parts, 1, -1):
        starts.append(begin[left][starts[-1]])
    return starts


def cut(file: TfliteFile, starts: Sequence[int]) -> list[TfliteFile]:
    """Return one file for each segment, of the operators from its start to the next one's.

    Raises InputError where a file holds what was not read and cannot be written again.
    """
    _check_known(file)
    stops = [*starts[1:], len(file.operators)]
    return [_segment(file, start, stop) for start, stop in zip(starts, stops, strict=True)]


def _check_known(file: TfliteFile) -> None:
    made = {name for operator in file.operators for name in operator.outputs} | set(file.inputs)
    for operator in file.operators:
        where = f"operator {operator.index} ({operator.name})"
        if operator.name in WITHHELD or operator.name not in schema.OPERATORS:
            raise InputError(f"the model cannot be cut: {where} has options that cannot be copied")
        read = [file.tensors[name] for name in operator.inputs if name >= 0]
        if any(t.data is None and not t.variable and t.index not in made for t in read):
            raise InputError(
                f"the model cannot be cut: {where} reads a constant of a type that cannot be copied"
            )
        if any(tensor.sparse for tensor in read) or _is_hybrid(file, operator):
            raise InputError(f"the model cannot be cut: {where} has weights in a form that cannot be copied")


def _is_hybrid(file: TfliteFile, operator: Operator) -> bool:
    """Say whether an operator quantizes its input by itself, in a way that its options choose."""
    weights = {file.tensors[name].dtype for name in operator.inputs[1:] if name >= 0}
    made = {file.tensors[name].dtype for name in operator.outputs}
    return operator.name in HYBRID and "float32" in made and "int8" in weights


def _lives(file: TfliteFile) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Return by tensor the operators that make it, read it first, and read it last."""
    made: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for operator in file.operators:
        made.update((name, operator.index) for name in operator.outputs)
        for name in operator.inputs:
            if name >= 0:
                first.setdefault(name, operator.index)
                last[name] = operator.index
    return made, first, last


def _segment(file: TfliteFile, start: int, stop: int) -> TfliteFile:
    inside = file.operators[start:stop]
    made = {name for operator in inside for name in operator.outputs}
    read = [name for operator in inside for name in operator.inputs if name >= 0]
    later = {name for operator in file.operators[stop:] for name in operator.inputs}
    needed = dict.fromkeys(name for name in read if name not in made)
    inputs = [n for n in needed if file.tensors[n].data is None and not file.tensors[n].variable]
    if start == 0:
        inputs = list(file.inputs)  # in the caller's order
    ends = stop == len(file.operators)
    outputs = list(file.outputs) if ends else [n for n in dict.fromkeys(_outputs(inside)) if n in later]
    hidden = {name for operator in inside for name in operator.intermediates}
    kept = sorted({*read, *made, *inputs, *outputs, *hidden})
    number = {name: position for position, name in enumerate(kept)} | {-1: -1}
    return replace(
        file,
        tensors=tuple(replace(file.tensors[name], index=number[name]) for name in kept),
        operators=tuple(
            replace(
                operator,
                index=index,
                inputs=tuple(number[name] for name in operator.inputs),
                outputs=tuple(number[name] for name in operator.outputs),
                intermediates=tuple(number[name] for name in operator.intermediates),
            )
            for index, operator in enumerate(inside)
        ),
        inputs=tuple(number[name] for name in inputs),
        outputs=tuple(number[name] for name in outputs),
        signatures=(),
    )


def _outputs(operators: Sequence[Operator]) -> list[int]:
    return [name for operator in operators for name in operator.outputs]
