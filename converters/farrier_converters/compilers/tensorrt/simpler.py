"""Write operators that an older importer has not in the simpler ones that the ONNX standard defines them by."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper, inliner

from ...graph.types import infer
from ...model import STANDARD_DOMAINS, Model, from_proto
from ...passes import Context
from ...passes.clean import CLEAN

DEEP = 3  # definitions within definitions


def simplified(model: Model, names: Collection[str]) -> Model:
    """Return a graph without these operators, as far as onnx can write them out."""
    for _ in range(DEEP):
        used = {n.op_type for n in model.proto.graph.node if n.domain in STANDARD_DOMAINS}.intersection(names)
        if not used:
            break
        model = _written_out(model, sorted(used))
    return model


def _written_out(model: Model, names: list[str]) -> Model:
    typed = onnx.ModelProto()
    typed.CopyFrom(model.proto)
    del typed.graph.value_info[:]
    given = {value.name for value in (*typed.graph.input, *typed.graph.output)}
    for name, kind in infer(model.proto).items():
        if name not in given:  # a body hangs on its arguments' types, those of constants among them
            typed.graph.value_info.append(helper.make_tensor_value_info(name, kind.dtype, kind.shape))
    try:
        made = inliner.inline_selected_functions(
            typed, [("", name) for name in names], inline_schema_functions=True
        )
    except (RuntimeError, TypeError, ValueError):  # no definition, or an onnx that cannot yet
        return model
    del made.graph.value_info[:]
    return CLEAN.run(from_proto(made, model.name), CLEAN.options(), Context())
