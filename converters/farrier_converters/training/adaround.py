"""AdaRound: learn for each weight whether to round it up or down, layer by layer, from calibration data.

Source: Nagel et al., "Up or down? Adaptive rounding for post-training quantization", arXiv 2004.10568. A layer sees the
inputs that the quantized layers before it make, and is fitted to what the float layer makes of float inputs, its
activation function and quantizer included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import UsageError

from ..graph.write_back import write_back
from ..model import Model
from ..quantize.rewrite import Known
from .lowering import Step, execute
from .module import OnnxModule
from .ops.quantized import along
from .qat import Quantization

HIGH, LOW = 1.1, -0.1  # the stretched sigmoid's ends: its clipped form reaches 0 and 1
LINEAR = ("Conv", "Gemm", "MatMul")
BETAS = (20.0, 2.0)  # exponent of the regularizer, from first to last: ever more weights decide


@dataclass(frozen=True)
class AdaRoundSettings:
    """`iterations` per layer; `batches` of calibration data at most, whose live values stay in memory.

    `regularizer` weighs the pull towards 0 or 1, which starts after `warmup` of all iterations.
    """

    iterations: int = 400
    batches: int = 8
    learning_rate: float = 0.01
    regularizer: float = 0.01
    warmup: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Layer:
    """One operator with weights in the trainable graph, and the steps behind it up to its quantizer."""

    weight: str
    dequantized: str
    scale: str
    position: int
    chain: tuple[Step, ...]
    limit: int

    @property
    def result(self) -> str:
        """The tensor that is fitted; the float graph has one of the same name."""
        return self.chain[-1].outputs[0]


def adaround(
    quantization: Quantization,
    batches: Callable[[], Iterable[Mapping[str, np.ndarray]]],
    settings: AdaRoundSettings = AdaRoundSettings(),
    *,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Model:
    """Return the integer model with learned rounding. Raises UsageError where there is no data."""
    graph, learnable = quantization.trainable({})
    quantized, exact = (
        OnnxModule(graph, trainable=learnable.biases).eval(),
        OnnxModule(quantization.model).eval(),
    )
    layers = _layers(quantized, exact, learnable.weights)
    rows = [_tensors(feeds) for feeds, _ in zip(batches(), range(settings.batches), strict=False)]
    if not rows:
        raise UsageError("learned rounding needs calibration data; give some with --data or --calib")
    inner = _Walk(quantized, [dict(r) for r in rows])
    outer = _Walk(exact, [dict(r) for r in rows])
    generator = torch.Generator().manual_seed(settings.seed)
    changed: dict[str, np.ndarray] = {}
    for number, layer in enumerate(layers):
        progress("round", number / len(layers))
        with torch.no_grad():
            inner.until(layer.position)
            targets = outer.tensor(layer.result)
        weight = _fit(quantized, layer, inner.values, targets, settings, generator)
        with torch.no_grad():
            quantized.value(layer.weight).copy_(weight)
            inner.set(layer.dequantized, weight)
        changed[layer.weight] = weight.numpy()
    progress("round", 1.0)
    known = Known(weights={w: quantized.value(s).detach().numpy() for w, s in learnable.weights.items()})
    return replace(quantization, model=write_back(quantization.model, changed)).integers(known)


class _Walk:
    """Runs a module step by step over several batches at once, keeping only the values still needed."""

    def __init__(self, module: OnnxModule, values: list[dict[str, Any]]) -> None:
        self.module, self.values, self.position = module, values, 0

    def until(self, position: int) -> None:
        """Run the steps before `position`."""
        if position > self.position:
            for values in self.values:
                self.module.run(values, self.position, position)
            self.position = position

    def tensor(self, name: str) -> list[Tensor]:
        """Run until the tensor exists, and return it for each batch."""
        step = next(i for i, step in enumerate(self.module.steps) if name in step.outputs)
        if step < self.position and name in self.values[0]:
            return [values[name] for values in self.values]
        self.until(step)
        found = []
        for values in self.values:
            self.module.run(values, step, step + 1, keep=(name,))
            found.append(values[name])
        self.position = step + 1
        return found

    def set(self, name: str, value: Tensor) -> None:
        """Replace a tensor that was made already."""
        for values in self.values:
            if name in values:
                values[name] = value


def _layers(module: OnnxModule, exact: OnnxModule, scales: Mapping[str, str]) -> list[Layer]:
    """Return the layers in the order of the steps; weights that two operators share stay as they are."""
    named = {name for step in exact.steps for name in step.outputs}
    readers: dict[str, list[Step]] = {}
    for step in module.steps:
        for name in dict.fromkeys(step.inputs):
            readers.setdefault(name, []).append(step)
    fakes = {s.inputs[0]: s for s in module.steps if s.name == "FakeQuantize" and s.inputs[0] in scales}
    outputs = {fake.outputs[0]: fake for fake in fakes.values()}
    layers = []
    for position, step in enumerate(module.steps):
        fake = outputs.get(step.inputs[1]) if step.name in LINEAR else None
        if fake is None or len(readers[fake.outputs[0]]) > 1:
            continue
        chain = [step]
        while chain[-1].outputs[0] not in named:
            following = readers.get(chain[-1].outputs[0], [])
            if len(following) != 1:
                break
            chain.append(following[0])
        if chain[-1].outputs[0] in named:
            weight = fake.inputs[0]
            limit = fake.function.keywords["bounds"][1]  # type: ignore[attr-defined]
            layers.append(Layer(weight, fake.outputs[0], scales[weight], position, tuple(chain), limit))
    return layers


def _fit(
    module: OnnxModule,
    layer: Layer,
    inputs: list[dict[str, Any]],
    targets: list[Tensor],
    settings: AdaRoundSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return the weights on their grid, rounded as fits the targets best."""
    weight = module.value(layer.weight).detach()
    fake = next(s for s in module.steps if s.outputs == (layer.dequantized,))
    scale = along(module.value(layer.scale).detach(), fake.function.keywords["axis"], weight.ndim)  # type: ignore[attr-defined]
    floor = torch.floor(weight / scale)
    share = (weight / scale - floor).clamp(0.01, 0.99)
    logits = torch.log((share - LOW) / (HIGH - share)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=settings.learning_rate)
    order = torch.randint(len(inputs), (settings.iterations,), generator=generator).tolist()
    for number, batch in enumerate(order):
        up = (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0, 1)
        rounded = (floor + up).clamp(-layer.limit, layer.limit) * scale
        found = _apply(module, layer, inputs[batch], rounded)
        loss = (found - targets[batch]).square().sum(1).mean()
        done = (number / settings.iterations - settings.warmup) / (1 - settings.warmup)
        if done > 0:
            beta = BETAS[0] + (BETAS[1] - BETAS[0]) * done
            loss = loss + settings.regularizer * (1 - (2 * up - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decided = (floor + (logits.detach() >= 0)).clamp(-layer.limit, layer.limit)
    return decided * scale


def _apply(module: OnnxModule, layer: Layer, values: Mapping[str, Any], weight: Tensor) -> Tensor:
    names = {name for step in layer.chain for name in step.inputs if name}
    inner: dict[str, Any] = {name: values.get(name) for name in names}
    inner[layer.dequantized] = weight
    for step in layer.chain:
        for name in step.inputs:
            if name and inner.get(name) is None:
                inner[name] = module.value(name)
        execute(step, inner)
    return inner[layer.result]


def _tensors(feeds: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in feeds.items()}
