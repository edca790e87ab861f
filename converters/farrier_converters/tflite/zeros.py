"""Weights of many zeros as sparse tensors, which a DENSIFY operator makes dense when a file is opened.

XNNPACK unpacks them once and computes with its dense kernels, or, on processors and in networks that it has sparse
kernels for, skips the zeros: see the section Sparse Inference of its delegate's README. Sources of the format:
tensorflow/compiler/mlir/lite/schema/schema.fbs, SparsityParameters; Kjolstad et al., "The Tensor Algebra Compiler".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .file import Operator, Tensor, TfliteFile

WEIGHTS = {"CONV_2D": 1, "FULLY_CONNECTED": 1}  # operators, and the input that holds their weights
LEAST_ZEROS = (
    2 / 3
)  # XNNPACK's sparse kernels want more; about where the sparse form is half of the dense one
FEWEST = 1024  # elements; fewer are not worth an operator
NARROW = ((256, np.dtype("u1")), (65536, np.dtype("<u2")))  # sizes, and the type that counts so far


@dataclass(frozen=True)
class Rows:
    """A tensor as rows of its last axis: where the entries of each begin and end, their places, their values."""

    ends: np.ndarray
    places: np.ndarray
    values: np.ndarray


def rows_of(dense: np.ndarray) -> Rows:
    """Return the compressed rows; integers are as narrow as the schema allows."""
    matrix = dense.reshape(-1, dense.shape[-1])
    there = matrix != 0
    ends = np.concatenate([[0], np.cumsum(there.sum(1))])
    return Rows(_narrow(ends), _narrow(np.nonzero(there)[1]), matrix[there])


def with_sparse_weights(file: TfliteFile) -> TfliteFile:
    """Return the file with float32 weights of more than two thirds of zeros as sparse tensors.

    Weights that anything else reads too stay dense.
    """
    tensors, unpacked = list(file.tensors), []
    for index in _sparse(file):
        dense = file.tensors[index]
        packed = replace(dense, index=len(tensors), name=f"{dense.name}_zeros", sparse=True)
        tensors.append(packed)
        tensors[index] = replace(dense, data=None)
        unpacked.append(Operator(0, "DENSIFY", (packed.index,), (index,), {}))
    operators = [replace(o, index=number) for number, o in enumerate((*unpacked, *file.operators))]
    return replace(file, tensors=tuple(tensors), operators=tuple(operators))


def _sparse(file: TfliteFile) -> list[int]:
    weights: dict[int, None] = {}
    others = set(file.outputs)
    for operator in file.operators:
        slot = WEIGHTS.get(operator.name, -1)
        for position, index in enumerate(operator.inputs):
            if position == slot:
                weights[index] = None
            else:
                others.add(index)
    return [index for index in weights if index not in others and _worth(file.tensors[index])]


def _worth(tensor: Tensor) -> bool:
    data = tensor.data
    if data is None or tensor.dtype != "float32" or data.ndim < 2 or data.size < FEWEST:
        return False
    return float((data == 0).mean()) > LEAST_ZEROS


def _narrow(values: np.ndarray) -> np.ndarray:
    most = int(values.max(initial=0))
    return values.astype(next((kind for limit, kind in NARROW if most < limit), np.dtype("<i4")))
