"""The range method "auto": of several quantized forms, the one whose outputs are nearest to float."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from farrier_contracts.targets import ARITHMETICS
from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.int8 import AUTO_METHODS, INT8, Int8Options
from farrier_converters.quantize.nearest import NearestSettings, nearest

ASSETS = Path(__file__).resolve().parent.parent.parent / "sdk" / "farrier" / "showcase" / "assets"


def scaled(*factors: float) -> model.Model:
    """One input, and one output for each factor."""
    outputs = ", ".join(f"float[n, 4] y{i}" for i in range(len(factors)))
    constants = ", ".join(f"float f{i} = {{{f}}}" for i, f in enumerate(factors))
    body = "\n".join(f"y{i} = Mul (x, f{i})" for i in range(len(factors)))
    text = (
        f'<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => ({outputs}) <{constants}> {{ {body} }}'
    )
    return model.from_proto(parser.parse_model(text), "g")


def rows() -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    while True:  # a stream without an end: only some of it is looked at
        yield {"x": rng.normal(size=(8, 4)).astype(np.float32)}


@pytest.mark.parametrize(
    ("forms", "chosen"),
    [
        ({"first": (1.1,), "second": (1.01,)}, "second"),
        ({"first": (1.01,), "second": (1.1,)}, "first"),
        ({"first": (1.0100,), "second": (1.0099,)}, "first"),  # about as good: no reason to leave it
        ({"first": (1.0,), "second": (1.0,)}, "first"),
    ],
)
def test_the_nearest_outputs_win(forms: dict[str, tuple[float]], chosen: str) -> None:
    assert nearest(scaled(1.0), {n: scaled(*f) for n, f in forms.items()}, rows) == chosen


def test_each_output_counts_by_its_own_spread() -> None:
    """A large output with a small share of error weighs less than a small one that is all error."""
    reference = scaled(1000.0, 0.001)
    forms = {"large": scaled(1010.0, 0.001), "small": scaled(1000.0, 0.002)}
    assert nearest(reference, forms, rows) == "large"


def test_forms_that_cannot_be_run_leave_the_first() -> None:
    assert nearest(scaled(1.0), {"first": scaled(1.1), "second": scaled(1.0)}, lambda: iter([])) == "first"
    wrong = [{"x": np.zeros((2, 3), np.float32)}]
    assert nearest(scaled(1.0), {"first": scaled(1.1), "second": scaled(1.0)}, lambda: iter(wrong)) == "first"


def test_a_few_rows_are_looked_at() -> None:
    seen = []

    def counted() -> Iterator[dict[str, np.ndarray]]:
        for feeds in rows():
            seen.append(len(feeds["x"]))
            yield feeds

    nearest(scaled(1.0), {"first": scaled(1.1)}, counted, NearestSettings(rows=20))
    assert sum(seen) == 24


def test_auto_is_as_near_as_the_best_of_its_methods_and_calibrates_once() -> None:
    with np.load(ASSETS / "digits-calib.npz") as found:
        images = found["image"]
    streams = []

    def calibration() -> Iterator[dict[str, np.ndarray]]:
        streams.append(1)
        return iter([{"image": images[i : i + 32]} for i in range(0, len(images), 32)])

    source = model.load(ASSETS / "digits.onnx")
    context = passes.Context(calibration=calibration)
    for name in ("clean", "fuse"):
        source = passes.get(name).run(source, passes.get(name).options(), context)
    wanted = run.once(source.proto, {"image": images[:64]})[0]

    def quantized(method: str) -> onnx.ModelProto:
        return INT8.run(source, Int8Options(method=method, bias_correction=False), context).proto

    def error(proto: onnx.ModelProto) -> float:
        return float(np.square(run.once(proto, {"image": images[:64]})[0] - wanted).mean())

    streams.clear()
    auto = quantized("auto")
    once = len(streams)
    errors = {method: error(quantized(method)) for method in AUTO_METHODS}
    assert error(auto) * (1 - NearestSettings().margin) <= min(errors.values())
    streams.clear()
    quantized("mse")
    assert once <= len(streams) + len(AUTO_METHODS), "every method has calibrated anew"
    assert quantized("auto") == auto


def test_ranges_are_the_same_whatever_was_tried_before(resnet20, cifar10, apply):
    """To the last bit: a recipe is built again alone, without the candidates of the search that found it."""
    fused = apply(resnet20, "clean", "fuse")
    context = passes.Context(ARITHMETICS["x86-vnni"], lambda: iter([{"images": cifar10[0][:16]}]))
    convolutions = [node.output[0] for node in fused.proto.graph.node if node.op_type == "Conv"]
    mix = ("int8", {"method": "minmax", "exclude": tuple(convolutions[5:15])})
    shared = replace(context, statistics={})
    apply(fused, ("int8", {"method": "minmax"}), context=shared)
    assert apply(fused, mix, context=shared).proto == apply(fused, mix, context=context).proto
