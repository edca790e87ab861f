"""Mixed precision: the solver's optimum, the search's count of validations, and measured sensitivities."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier_contracts import targets
from farrier_contracts.targets import Arithmetic
from farrier_converters import passes
from farrier_converters.graph import run
from farrier_converters.graph.compact.shrink import shrink
from farrier_converters.ledger import ledger
from farrier_converters.mixed.search import MOST_VALIDATIONS, search
from farrier_converters.mixed.sensitivity import measure
from farrier_converters.mixed.solve import COSTS, STEPS, Cost, solve, total
from farrier_converters.mixed.ways import Way, layers, named
from farrier_converters.mixed.ways import apply as assign

positive = st.floats(0, 100, width=32)
tables = st.dictionaries(
    st.sampled_from("abcde"),
    st.dictionaries(
        st.sampled_from(["float", "int4", "int8"]), st.builds(Cost, positive, positive, positive), min_size=1
    ),
    min_size=1,
)


def _all(costs):
    layers = sorted(costs)
    for ways in itertools.product(*(sorted(costs[layer]) for layer in layers)):
        yield dict(zip(layers, ways, strict=True))


def _wide_table(layers, seed=0):
    """Layers whose int8 and int4 forms are smaller, faster and noisier, by very different amounts."""
    rng = np.random.default_rng(seed)
    table = {}
    for index in range(layers):
        size, noise = rng.lognormal(10, 1.5), rng.lognormal(-8, 2)
        table[f"layer{index}"] = {
            "float": Cost(0.0, 4 * size, size),
            "int8": Cost(noise, size, size / 3),
            "int4": Cost(noise * 200, size / 2, size / 3),
        }
    return table


@given(
    costs=tables,
    minimize=st.sampled_from(COSTS),
    bound=st.sampled_from(COSTS),
    limit=st.floats(0, 500, width=32),
)
@settings(deadline=None)
def test_limits_hold_and_nothing_is_better_by_more_than_the_rounding(costs, minimize, bound, limit):
    found = solve(costs, minimize=minimize, limits={bound: limit})
    allowed = [a for a in _all(costs) if total(costs, a, bound) <= limit]
    least = sum(min(getattr(c, bound) for c in ways.values()) for ways in costs.values())
    rounding = len(costs) * max(limit - least, 0) / STEPS
    tight = [a for a in _all(costs) if total(costs, a, bound) <= limit - rounding]
    if found is None:
        assert not tight
        return
    assert total(costs, found, bound) <= limit * (1 + 1e-9) + 1e-9
    value = total(costs, found, minimize)
    assert value >= min(total(costs, a, minimize) for a in allowed) - 1e-6
    if tight:
        assert value <= min(total(costs, a, minimize) for a in tight) + 1e-6


@given(costs=tables, limits=st.tuples(st.floats(0, 500, width=32), st.floats(0, 500, width=32)))
@settings(deadline=None)
def test_two_limits_hold_together(costs, limits):
    found = solve(costs, minimize="loss", limits={"bytes": limits[0], "ms": limits[1]})
    if found is not None:
        assert total(costs, found, "bytes") <= limits[0] * (1 + 1e-9) + 1e-9
        assert total(costs, found, "ms") <= limits[1] * (1 + 1e-9) + 1e-9


def test_at_equal_size_a_mix_loses_much_less_than_one_precision_for_all():
    costs = _wide_table(100)
    uniform = dict.fromkeys(costs, "int8")
    found = solve(costs, minimize="loss", limits={"bytes": total(costs, uniform, "bytes")})
    assert found is not None
    assert total(costs, found, "loss") <= 0.8 * total(costs, uniform, "loss")


@pytest.mark.parametrize("hardness", [1e-4, 1e-2, 1.0, 100.0])
def test_a_hundred_layers_take_at_most_twelve_validations(hardness):
    costs = _wide_table(100, seed=3)
    asked = []

    def validate(assignment):
        asked.append(assignment)
        return hardness * total(costs, assignment, "loss") ** 0.7

    found = search(costs, validate, max_drop=0.01)
    assert len(asked) == len(found.trials) <= MOST_VALIDATIONS
    assert found.assignment is not None
    assert hardness * total(costs, found.assignment, "loss") ** 0.7 <= 0.01
    # what the truth allows, found with the metric known beforehand
    truth = solve(costs, minimize="ms", limits={"loss": (0.01 / hardness) ** (1 / 0.7)})
    assert truth is not None
    assert total(costs, found.assignment, "ms") <= total(costs, truth, "ms") * 1.05


def test_what_cannot_be_met_is_none_and_still_ends():
    costs = _wide_table(10)
    found = search(costs, lambda assignment: 1.0, max_drop=0.01)
    assert found.assignment is None
    assert 0 < len(found.trials) <= MOST_VALIDATIONS
    assert search(costs, lambda assignment: 0.0, max_drop=0.01, limits={"bytes": 1.0}).assignment is None


def test_every_node_gets_a_name_of_its_own(resnet20):
    proto = onnx.ModelProto()
    proto.CopyFrom(resnet20.proto)
    first, second = proto.graph.node[:2]
    second.name, first.name = first.output[0], ""  # what the first would be called is taken
    found = named(replace(resnet20, proto=proto))
    names = [node.name for node in found.proto.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert [list(n.output) for n in found.proto.graph.node] == [list(n.output) for n in proto.graph.node]


def test_sensitivity_of_a_real_network(resnet20, cifar10, apply):
    pictures = cifar10[0][:32]
    batches = [{"images": pictures[i : i + 8]} for i in range(0, 32, 8)]
    context = passes.Context(Arithmetic("u8"), lambda: iter(batches), statistics={})
    graph = apply(resnet20, "clean", "fuse")
    found = measure(graph, [Way("int8", "int8")], context, rows=batches[:2])
    assert len(found.layers) == 20
    assert all(set(ways) == {"float", "int8"} for ways in found.costs.values())
    assert all(0 < ways["int8"].loss < 0.01 for ways in found.costs.values())
    whole = dict.fromkeys(found.layers, "int8")
    quantized = assign(graph, whole, found.ways, found.layers, context)
    # the layers' shares of the file, added up, are the file
    size = found.base_bytes + total(found.costs, whole, "bytes")
    assert size == pytest.approx(shrink(quantized).proto.ByteSize(), rel=0.01)
    wanted, ours = (run.once(m.proto, batches[0])[0] for m in (graph, quantized))
    together = float(np.square(ours - wanted).sum() / np.square(wanted).sum())
    # roundings of different layers are nearly independent, so that their noises add up
    assert together == pytest.approx(total(found.costs, whole, "loss"), rel=1.0)


def test_an_assignment_is_what_its_passes_make(resnet20, cifar10, apply):
    batches = [{"images": cifar10[0][:8]}]
    context = passes.Context(Arithmetic("u8"), lambda: iter(batches))
    graph = apply(resnet20, "clean", "fuse")
    everything = layers(graph)
    chosen = dict.fromkeys(everything[3:9], "int8")
    mixed = assign(graph, chosen, [Way("int8", "int8")], everything, context)
    reasons = {
        entry.name: entry.precision for entry in ledger(mixed, targets.get("x86-vnni")) if entry.op == "Conv"
    }
    assert list(reasons.values()) == ["fp32"] * 3 + ["int8"] * 6 + ["fp32"] * 10
