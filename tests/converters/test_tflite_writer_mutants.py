"""Cases of the backend suite with seeded damage: a file comes out, or one sentence, and never a traceback."""

from __future__ import annotations

import random
import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from farrier_contracts.errors import InputError
from farrier_converters.compilers.tflite import Code, ConversionError, convert
from farrier_converters.model import load
from farrier_converters.tflite.write import write

MUTANTS = 250
FLAGS = (-5, -1, 0, 1, 2, 7, 1 << 40)
KINDS = (1, 2, 3, 6, 7, 9, 10, 11)


@pytest.fixture(scope="module")
def graphs() -> list[onnx.ModelProto]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = sorted(collect_testcases(None), key=lambda case: case.name)
    tensors = [
        case.model
        for case in cases
        if case.model.graph.input
        and "_expanded" not in case.name
        and all(value.type.HasField("tensor_type") for value in case.model.graph.input)
    ]
    assert len(tensors) > 1_000
    return tensors


def damaged(proto: onnx.ModelProto, rng: random.Random, others: list[onnx.ModelProto]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    node, value = rng.choice(copy.graph.node), rng.choice(copy.graph.input)
    kind, dims = value.type.tensor_type, value.type.tensor_type.shape.dim
    match rng.randrange(7):
        case 0 if node.attribute:
            field = rng.choice(node.attribute)
            field.i = rng.choice(FLAGS)
            field.f = rng.choice([0.0, -1.0, 1e30, float("nan")])
            field.s = rng.choice([b"", b"x", b"nearest", b"SAME_LOWER"])
            field.ints[:] = [rng.choice(FLAGS) if rng.random() < 0.3 else v for v in field.ints]
        case 1 if node.attribute:
            del node.attribute[rng.randrange(len(node.attribute))]
        case 2 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice([*node.input, ""])
        case 3 if dims:
            rng.choice(dims).dim_value = rng.choice([0, 1, 2, 3, 100])
        case 4 if dims:
            dims[0].dim_param = "N"
        case 5:
            kind.elem_type = rng.choice(KINDS)
        case _:
            node.op_type = rng.choice(others).graph.node[0].op_type
    if rng.random() < 0.3 and kind.elem_type in (1, 6, 7, 9) and np.prod([d.dim_value for d in dims]) < 1e4:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        array = np.full([d.dim_value for d in dims], rng.choice([0, 1, -1, 2, 3])).astype(dtype)
        copy.graph.initializer.append(numpy_helper.from_array(array, value.name))
    return copy


def attempt(path) -> bytes | InputError:
    try:
        return write(convert(load(path))[0])
    except InputError as error:
        return error


def test_damage_gives_a_file_or_a_sentence(graphs, tmp_path):
    rng = random.Random(20)
    path = tmp_path / "mutant.onnx"
    refused = 0
    for _ in range(MUTANTS):
        path.write_bytes(damaged(rng.choice(graphs), rng, graphs).SerializeToString())
        found = attempt(path)
        if isinstance(found, bytes):
            assert found[4:8] == b"TFL3"
            continue
        refused += 1
        assert "\n" not in str(found)
        if isinstance(found, ConversionError):
            assert all(isinstance(failure.code, Code) and failure.op for failure in found.failures)
    assert MUTANTS // 10 < refused < MUTANTS * 9 // 10
