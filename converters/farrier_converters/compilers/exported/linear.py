"""Products with stored matrices as `aten.linear`, weights as [outputs, inputs]: the one form that back ends match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ...training.lowering import Program, Step
from .quantizers import form

TURNED = "\0t"  # ends the name of a transposed copy; no tensor's ends so
DEQUANTIZE = "DequantizeLinear"


def linears(program: Program) -> None:
    """Rewrite the program's steps; products of other kinds stay as they are."""
    makers = {name: step for step in program.steps for name in step.outputs}
    turned: dict[str, Step] = {}
    steps: list[Step] = []
    for step in program.steps:
        made = _linear(step, program, makers)
        if made is not None and made.inputs[1].endswith(TURNED) and made.inputs[1] not in turned:
            turned[made.inputs[1]] = _turn(made.inputs[1], program, makers)
            steps.append(turned[made.inputs[1]])
        steps.append(made or step)
    program.steps[:] = steps


def _linear(step: Step, program: Program, makers: Mapping[str, Step]) -> Step | None:
    if step.name not in ("MatMul", "Gemm"):
        return None
    given = form(step)
    if given.get("trans_a") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        return None
    weight = _stored(step.inputs[1], program, makers)
    if weight is None or weight.ndim != 2:
        return None
    bias = step.inputs[2:]
    if any((c := _stored(name, program, makers)) is None or c.ndim != 1 or c.size == 1 for name in bias):
        return None
    name = step.inputs[1] if given.get("trans_b") else f"{step.inputs[1]}{TURNED}"
    return Step("Linear", _product, (step.inputs[0], name, *bias), step.outputs)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def _stored(name: str, program: Program, makers: Mapping[str, Step]) -> np.ndarray | None:
    """Return a constant, or the integers that a tensor is dequantized from."""
    maker = makers.get(name)
    if maker is not None and maker.name == DEQUANTIZE:
        name = maker.inputs[0]
    return program.constants.get(name)


def _turn(name: str, program: Program, makers: Mapping[str, Step]) -> Step:
    """Return the step that makes a transposed weight, out of a constant that is added."""
    source = name.removesuffix(TURNED)
    maker = makers.get(source)
    if maker is None:
        stored = f"{source}{TURNED}{TURNED}"
        program.constants[stored] = np.ascontiguousarray(program.constants[source].T)
        return Step("Identity", lambda x: x, (stored,), (name,))
    stored = f"{maker.inputs[0]}{TURNED}{TURNED}"
    program.constants[stored] = np.ascontiguousarray(program.constants[maker.inputs[0]].T)
    given = form(maker)
    function = partial(maker.function, **{**given, "axis": 1 - given["axis"] % 2})
    return replace(maker, function=function, inputs=(stored, *maker.inputs[1:]), outputs=(name,))
