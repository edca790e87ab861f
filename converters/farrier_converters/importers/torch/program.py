"""From a torch module or exported program in memory to ONNX, checked against what it computes in torch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from farrier_contracts.errors import InputError, MissingToolError

from ...model import Model, from_proto
from .._imported import Imported
from .compare import Example, check, differences, evaluating, noise, rows

if TYPE_CHECKING:
    import torch

ROWS = 2  # of an example whose batch is free: torch would take one row for the number 1
OPSET = 18  # what torch's exporter writes by itself
BATCHES = (
    2,
    3,
)  # rows of the example that is exported, and of a second one for the check, where the batch is free
TRACED_OPSET = 17
INSTALL = "pip install 'farrier[torch]'"


def from_torch(
    module: torch.nn.Module | torch.export.ExportedProgram,
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    dynamic_batch: bool = True,
    name: str = "model",
) -> Imported:
    """Import a torch module, or a program that `torch.export.export` made of one.

    `inputs` are example tensors, one for each argument of a module; a program brings its shapes along. With
    `dynamic_batch` the first dimension of all of them is free, where the module allows that; where it does not, a note
    says so. `check` compares both on fresh noise. Raises MissingToolError without torch, InputError for what torch
    cannot export.
    """
    need_torch()
    import torch

    if isinstance(module, torch.export.ExportedProgram):
        return _from_program(module, name)
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"a torch module or exported program is needed, not {type(module).__name__}")
    given = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    if not given or not all(isinstance(value, torch.Tensor) for value in given):
        raise InputError(
            "importing a torch module takes example inputs: one tensor for each of its arguments"
        )
    with evaluating(module), torch.no_grad():
        return _from_module(module, given, dynamic_batch=dynamic_batch, name=name)


def _from_module(
    module: torch.nn.Module, given: tuple[torch.Tensor, ...], *, dynamic_batch: bool, name: str
) -> Imported:
    batched = (
        dynamic_batch and all(value.ndim for value in given) and len({value.shape[0] for value in given}) == 1
    )
    notes: list[str] = []
    for free in (True, False) if batched else (False,):
        example = Example(tuple(rows(value, ROWS) for value in given) if free else given, free)
        try:
            model, told = _exported(module, example, name)
        except InputError as error:
            if not free:
                raise
            notes.append(f"the batch is fixed: with a free one torch does not export the module ({error})")
            continue
        found = differences(module, model, example.arrays, seed=1)
        if free and (found or not _is_free(model)):
            notes.append("the batch is fixed, because the module computes something else for other batches")
            continue
        return Imported(model, (*notes, *told), partial(check, module, model, example))
    raise InputError(f"torch does not export {name}")


def _exported(module: torch.nn.Module, example: Example, name: str) -> tuple[Model, tuple[str, ...]]:
    """Export through `torch.export`, or by tracing where that fails; return what there is to say about it."""
    import torch

    batch = torch.export.Dim.DYNAMIC
    shapes = tuple({0: batch} for _ in example.arrays) if example.free else None
    try:
        with _quiet():
            program = torch.export.export(module, example.arrays, dynamic_shapes=shapes, strict=False)
            return to_onnx(program, name), ()
    except Exception as error:  # the exporter raises whatever it meets
        why = _sentence(error)
    try:
        with _quiet():
            model = _traced(module, example, name)
    except Exception as error:
        raise InputError(f"torch cannot export {name}: {why}; nor trace it: {_sentence(error)}") from None
    return model, (
        f"{name} was traced with the example inputs, because torch.export does not take it: {why}",
    )


def _traced(module: torch.nn.Module, example: Example, name: str) -> Model:
    """Export what a module does with the example, through TorchScript; branches that it does not take are lost."""
    import torch
    from torch.utils import _pytree as pytree

    results = [leaf for leaf in pytree.tree_leaves(module(*example.arrays)) if leaf is not None]
    inputs, outputs = (
        _names(kind, len(found)) for kind, found in (("input", example.arrays), ("output", results))
    )
    content = io.BytesIO()
    torch.onnx.export(
        module,
        example.arrays,
        content,  # pyright: ignore[reportArgumentType]
        dynamo=False,
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={key: {0: "batch"} for key in (*inputs, *outputs)} if example.free else None,
        opset_version=TRACED_OPSET,
    )
    return from_proto(onnx.load_from_string(content.getvalue()), name)


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}{number}" for number in range(count)]


def to_onnx(program: torch.export.ExportedProgram, name: str) -> Model:
    """Return an exported program as ONNX; raises whatever torch's exporter meets."""
    import torch

    made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    if made is None:
        raise InputError(f"torch's exporter returned nothing for {name}")
    try:
        proto = onnx.load_from_string(made.model_proto.SerializeToString())
    except (DecodeError, ValueError):
        raise InputError(f"{name} is too large for one ONNX file (2 GiB)") from None
    del proto.metadata_props[:]
    for value in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]  # torch writes stack traces there, with paths of this machine
        value.doc_string = ""
    del proto.graph.metadata_props[:]
    proto.graph.doc_string = proto.doc_string = ""
    onnx.checker.check_model(proto)
    return from_proto(proto, name)


def _from_program(program: torch.export.ExportedProgram, name: str) -> Imported:
    try:
        with _quiet():
            model = to_onnx(program, name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"torch cannot export {name} to ONNX: {_sentence(error)}") from None
    example = Example(example_of(program), _is_free(model))
    return Imported(model, (), partial(check, program.module(), model, example))


def example_of(program: torch.export.ExportedProgram) -> tuple[torch.Tensor, ...]:
    """Return noise that fits a program's inputs; free dimensions are 2, whole numbers 0 or 1."""
    import torch

    kinds = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in kinds]
    if not all(isinstance(value, torch.Tensor) for value in values):
        raise InputError("a program whose arguments are not all tensors cannot be imported")
    shapes = [[size if isinstance(size, int) else ROWS for size in value.shape] for value in values]
    blank = [torch.zeros(shape, dtype=value.dtype) for shape, value in zip(shapes, values, strict=True)]
    return tuple(noise(value, seed) for seed, value in enumerate(blank))


def _is_free(model: Model) -> bool:
    return all(spec.shape and spec.shape[0] < 0 for spec in model.inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings to itself; what went wrong arrives as an exception."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def need_torch() -> None:
    """Raise MissingToolError where torch, or what its exporter takes, is not installed."""
    missing = [name for name in ("torch", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(f"importing from torch takes {' and '.join(missing)}; run: {INSTALL}")


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
