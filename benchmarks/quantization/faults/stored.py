"""Faults in what a quantized file stores: scales, zero points, weights, biases."""

from __future__ import annotations

import numpy as np
import onnx

from farrier_converters import data, model

from .planting import Editor, Planted, pick, quantized


def saturation(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One activation's range is a fraction of what it should be."""
    editor = Editor(quantized(a, rows))
    quantizer = pick(editor.quantizers(), rng)
    layers = editor.layer_names(quantizer)
    editor.set_range(quantizer, times=float(rng.uniform(0.05, 0.25)))
    return Planted(a, editor.build(), ("saturation",), layers)


def dead_range(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One activation's range is many times what it should be."""
    editor = Editor(quantized(a, rows))
    quantizer = pick(editor.quantizers(), rng)
    layers = editor.layer_names(quantizer)
    editor.set_range(quantizer, times=float(np.exp(rng.uniform(np.log(15), np.log(60)))))
    return Planted(a, editor.build(), ("dead range",), layers)


def zero_point(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One activation's zero point is off."""
    editor = Editor(quantized(a, rows))
    quantizer = pick(editor.quantizers(), rng)
    layers = editor.layer_names(quantizer)
    zero = editor.graph.constant(quantizer.input[2])
    assert zero is not None
    shift = int(rng.integers(60, 120))
    editor.set_range(quantizer, shift=shift if int(zero) < 128 else -shift)
    return Planted(a, editor.build(), ("damaged zero point",), layers)


def weight_scale(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """The scale of a layer's weights is wrong in a part of its channels."""
    editor = Editor(quantized(a, rows))
    node = pick(editor.linear(), rng)
    weights = editor.weights(node)
    scale = editor.graph.constant(weights.input[1])
    assert scale is not None
    factors = np.where(rng.random(scale.shape) < 0.3, rng.uniform(2, 4), 1.0)
    factors.flat[int(rng.integers(factors.size))] = 3.0
    editor.replace(weights, 1, (scale * factors).astype(np.float32))
    return Planted(a, editor.build(), ("damaged scale",), _names(node))


def bias(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """A layer's bias has another scale than its accumulator."""
    editor = Editor(quantized(a, rows))
    biased = [n for n in editor.linear() if len(n.input) > 2 and _large_bias(editor, n)]
    node = pick(biased, rng)
    stored = editor.weights(node, 2)
    scale = editor.graph.constant(stored.input[1])
    assert scale is not None
    editor.replace(stored, 1, (scale * rng.uniform(4, 10)).astype(np.float32))
    return Planted(a, editor.build(), ("damaged bias",), _names(node))


def _names(node: onnx.NodeProto) -> tuple[str, ...]:
    return node.name, node.output[0], node.output[0].removesuffix("_float")


def _large_bias(editor: Editor, node: onnx.NodeProto) -> bool:
    stored = editor.graph.producer.get(node.input[2])
    value = None if stored is None else editor.graph.constant(stored.input[0])
    return value is not None and bool(np.abs(value).max() > 0)
