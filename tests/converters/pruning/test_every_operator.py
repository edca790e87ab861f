"""Every operator of the standard, behind and in front of weights: what can go then goes without changing the rest."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from farrier_contracts.errors import InputError
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import groups_of
from farrier_converters.pruning.mask import masked
from farrier_converters.pruning.rules import RULES

EACH = 3  # variants of an operator that is followed, spread over its cases; one of any other
NEWEST = 26  # operator set of ONNX Runtime
RANDOM = ("Dropout", "Bernoulli", "Multinomial")
LEAST = 100  # variants in which something can go


@dataclass(frozen=True)
class Variant:
    """A case of the standard's suite, one of whose inputs comes from a dense layer along one of its axes."""

    case: Any
    name: str
    axis: int

    @property
    def operator(self) -> str:
        return self.case.model.graph.node[0].op_type

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        names = [value.name for value in self.case.model.graph.input]
        # copies: ONNX Runtime may write into what it is given, and the cases are one set for all tests
        return {name: np.array(value) for name, value in zip(names, self.case.data_sets[0][0], strict=True)}

    def model(self) -> Model | None:
        """Put a dense layer before the input, and one behind all elements of each output; None where none has any."""
        rng = np.random.default_rng(0)
        proto = onnx.ModelProto()
        proto.CopyFrom(self.case.model)
        graph = proto.graph
        value = self.feeds[self.name]
        size, last = value.shape[self.axis], [a for a in range(value.ndim) if a != self.axis]
        weights = np.eye(size) + rng.normal(
            0, 0.2, (size, size)
        )  # near what it was: most operators have a domain
        body = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        for node in body:
            for position, name in enumerate(node.input):
                if name == self.name:
                    node.input[position] = "given"
        order = [*last, self.axis]
        before = [
            helper.make_node("Transpose", [self.name], ["turned"], perm=order),
            helper.make_node("MatMul", ["turned", "weights"], ["made"]),
            helper.make_node("Transpose", ["made"], ["given"], perm=np.argsort(order).tolist()),
        ]
        after, outputs = [], []
        constants = {"weights": weights.astype(np.float32), "row": np.array([1, -1])}
        for output, known in zip(graph.output, map(np.asarray, self.case.data_sets[0][1]), strict=True):
            if known.size and known.dtype.kind in "fiub":
                cast, row, end = (f"{part} {output.name}" for part in ("cast", "row", "end"))
                head = rng.standard_normal((known.size, 3)) / np.sqrt(known.size)
                constants[f"head {output.name}"] = head.astype(np.float32)
                after.append(helper.make_node("Cast", [output.name], [cast], to=TensorProto.FLOAT))
                after.append(helper.make_node("Reshape", [cast, "row"], [row]))
                after.append(helper.make_node("MatMul", [row, f"head {output.name}"], [end]))
                outputs.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 3]))
        del graph.node[:], graph.output[:]
        graph.node.extend([*before, *body, *after])
        graph.output.extend(outputs)
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
        return from_proto(proto, self.case.name) if outputs else None


def variants() -> dict[str, list[Variant]]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic divides by zero on purpose
        cases = collect_testcases(None)
    found: dict[str, list[Variant]] = defaultdict(list)
    for case in cases:
        version = next((o.version for o in case.model.opset_import if o.domain == ""), NEWEST + 1)
        if case.data_sets and version <= NEWEST and len(case.model.graph.node) == 1:
            for variant in _inputs(case):
                found[variant.operator].append(variant)
    return {
        name: spread(some, EACH if name in RULES else 1) for name, some in found.items() if name not in RANDOM
    }


def _inputs(case: Any) -> Iterator[Variant]:
    inputs, outputs = case.data_sets[0]
    if any(isinstance(value, list) or value is None for value in (*inputs, *outputs)):
        return
    for value, given in zip(case.model.graph.input, inputs, strict=True):
        if np.asarray(given).dtype == np.float32:
            for axis, size in enumerate(np.shape(given)):
                if size > 1:
                    yield Variant(case, value.name, axis)


def spread(some: list[Variant], count: int) -> list[Variant]:
    return [some[position] for position in np.unique(np.linspace(0, len(some) - 1, count).astype(int))]


def answer(model: Model | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """Run a model; None for one that ONNX Runtime does not take, or whose result is beyond numbers."""
    found = None if model is None else run.try_once(model.proto, feeds)
    return found if found is not None and all(np.isfinite(value).all() for value in found) else None


@pytest.fixture(scope="module")
def operators() -> dict[str, list[Variant]]:
    return variants()


def test_no_operator_changes_more_than_its_masked_twin(operators: dict[str, list[Variant]]) -> None:
    counts, wrong = Counter(), []
    for variant in (variant for some in operators.values() for variant in some):
        model, feeds = variant.model(), variant.feeds
        if answer(model, feeds) is None or model is None:
            continue
        groups = groups_of(model, feeds)
        gone = [group.units[: group.size // 2] for group in groups.groups if group.size > 1]
        through = any(place.tensor == "weights" for group in groups.groups for place in group.places)
        counts["followed" if through and gone else "left whole"] += 1
        if not gone:
            assert groups.frozen, variant.case.name  # and it is said why
            continue
        units = np.concatenate(gone)
        try:
            found, expected = (run.once(m.proto, feeds) for m in (cut(groups, units), masked(groups, units)))
        except InputError as error:
            wrong.append(f"{variant.case.name} {variant.name} {variant.axis}: {error}")
            continue
        scale = max(1.0, *(float(np.abs(value).max()) for value in expected))
        if any(np.abs(a - b).max() > 1e-4 * scale for a, b in zip(found, expected, strict=True)):
            wrong.append(f"{variant.case.name} {variant.name} {variant.axis}: another answer")
    assert not wrong, "\n".join(wrong)
    assert counts["followed"] > LEAST, counts


def test_an_operator_without_a_rule_is_left_whole_and_named(operators: dict[str, list[Variant]]) -> None:
    named = 0
    for some in (some for name, some in operators.items() if name not in RULES):
        model, feeds = some[0].model(), some[0].feeds
        if model is None or answer(model, feeds) is None:
            continue
        groups = groups_of(model, feeds)
        assert not any(place.tensor == "weights" for group in groups.groups for place in group.places)
        assert any(some[0].operator in frozen.reason for frozen in groups.frozen), some[0].case.name
        named += 1
    assert named > 5
