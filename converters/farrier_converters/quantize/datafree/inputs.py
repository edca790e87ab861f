"""Make up inputs: noise with the spectra of real signals, scaled to what the first batch norms were trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from farrier_contracts.tensors import NUMPY_NAMES, TensorSpec

from ... import data
from ...graph import run
from ...graph.edit import Graph, attribute, standard
from ...model import Model

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LEAST_WHOLE = 4  # inputs, where rows are put together into whole ones
SMOOTH_SIZE = 16  # an axis so long is taken for space or time, along which real signals are smooth
SLOPES = (0.0, 0.5, 1.0, 1.5)  # of the amplitude over frequency, in turns: white noise to smooth shapes
MOST_CHANNELS = 16  # of an input, each of which gets a mean of its own
LINEAR = ("Conv", "Gemm", "MatMul")
AFFINE = (*LINEAR, "Add", "Sub", "Mul", "Div", "Pad", "Transpose", "Identity", "Reshape")
PROBE_ROWS = 16
SCALE_LIMITS = (1e-3, 1e3)
DEAD_SHARE = 1e-6  # of the largest variance; a channel with less says nothing about the scale
WEAK_DIRECTION = 0.05  # singular values below this share say nothing about the means


@dataclass(frozen=True)
class Moments:
    """What an input is scaled to: a mean per channel of `axis` (or one for all), one standard deviation."""

    mean: np.ndarray
    deviation: float
    axis: int | None

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return standardised values in these moments."""
        shape = [-1 if a == self.axis else 1 for a in range(values.ndim)]
        return (values * self.deviation + self.mean.reshape(shape)).astype(values.dtype)


def imagine(model: Model, settings: data.DataSettings = data.DataSettings()) -> data.Dataset:
    """Make up seeded rows for a model's inputs; raises InputError where an input cannot be made up.

    Float inputs are noise with falling spectra (as natural pictures and sounds have) in mean 0 and deviation 1.
    Where the input reaches a batch norm through affine operators alone, mean and deviation are those with which the
    batch norm sees the moments that it was trained with; where there is none, the first layer gives mean 0 and
    deviation 1.
    """
    made = data.random(model.inputs, settings)
    rng = np.random.default_rng(settings.seed)
    arrays = dict(made.arrays)
    for spec in model.inputs:
        if np.issubdtype(arrays[spec.name].dtype, np.floating) and spec.name not in made.constant:
            arrays[spec.name] = _noise(arrays[spec.name].shape, rng).astype(arrays[spec.name].dtype)
    for spec in model.inputs:
        moments = _trained_on(model, spec, arrays) if spec.name not in made.constant else None
        if moments is not None:
            arrays[spec.name] = moments.apply(arrays[spec.name])
    return _whole(model, replace(made, arrays=arrays))


def _whole(model: Model, made: data.Dataset) -> data.Dataset:
    """Let each row be a whole input where the first axis of inputs is not that of the outputs: time, say, not rows."""
    fixed = made.fixed_batch
    if fixed is None or fixed == 1 or any(spec.shape[:1] in ((fixed,), (-1,)) for spec in model.outputs):
        return made
    names = frozenset(spec.name for spec in model.inputs) - made.constant
    count = max(len(made) // fixed, LEAST_WHOLE)
    arrays = {
        name: np.resize(array, (count, fixed, *array.shape[1:])) if name in names else array
        for name, array in made.arrays.items()
    }
    return replace(made, arrays=arrays, rows=np.arange(count), stacked=names)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape)
    axes = tuple(a for a in range(1, len(shape)) if shape[a] >= SMOOTH_SIZE)
    if not axes:
        return values
    frequency = np.zeros([1] * len(shape))
    for axis in axes:
        size = shape[axis]
        along = np.abs(np.fft.fftfreq(size)).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        frequency = frequency + along**2
    lowest = 1 / max(shape[a] for a in axes)
    frequency = np.maximum(np.sqrt(frequency), lowest)
    for number, slope in enumerate(SLOPES):
        rows = slice(number, None, len(SLOPES))
        if slope and values[rows].size:
            values[rows] = np.fft.ifftn(
                np.fft.fftn(values[rows], axes=axes) / frequency**slope, axes=axes
            ).real
    spread = values.std(axis=tuple(range(1, len(shape))), keepdims=True)
    return values / np.maximum(spread, np.finfo(np.float32).tiny)


def _trained_on(model: Model, spec: TensorSpec, arrays: dict[str, np.ndarray]) -> Moments | None:
    """Return the moments of this input that explain what its first layers were trained with, or None."""
    graph = Graph(model)
    known = _first_moments(graph, spec.name)
    if not known or not np.issubdtype(np.dtype(NUMPY_NAMES[spec.datatype]), np.floating):
        return None
    axis = _channel_axis(arrays[spec.name].shape)
    channels = 1 if axis is None else arrays[spec.name].shape[axis]
    rows = {name: value[:PROBE_ROWS] if len(value) > PROBE_ROWS else value for name, value in arrays.items()}
    noise = rows[spec.name]
    constants = [np.zeros_like(noise)] + [_only(noise, axis, c) for c in range(channels)]
    try:
        session = run.session(run.up_to(graph.build().proto, [k.tensor for k in known]), threads=run.THREADS)
        results = [_responses(session, known, {**rows, spec.name: value}) for value in (*constants, noise)]
    except run.runtime_errors():
        return None
    (offset, _), *responses, (_, variance) = results
    slopes = np.stack([mean - offset for mean, _ in responses], axis=1)
    wanted, wanted_variance = (
        np.concatenate([np.broadcast_to(getattr(k, field), k.channels) for k in known])
        for field in ("mean", "variance")
    )
    found = np.linalg.lstsq(slopes, wanted - offset, rcond=WEAK_DIRECTION)[0]
    live = variance > DEAD_SHARE * variance.max()
    if not variance.any() or not np.isfinite(found).all():
        return None
    deviation = float(np.sqrt(np.median(wanted_variance[live] / variance[live])))
    return Moments(found, float(np.clip(deviation, *SCALE_LIMITS)), axis)


@dataclass(frozen=True)
class _Known:
    """A tensor behind affine operators, and its moments per channel of `axis` over the training data."""

    tensor: str
    axis: int
    channels: int
    mean: np.ndarray
    variance: np.ndarray


def _first_moments(graph: Graph, name: str) -> list[_Known]:
    """Return what is known of the first tensors behind an input: statistics of batch norms, else a rule.

    Without batch norms (folded, or never there), the first layers are assumed to give mean 0 and variance 1: so do
    batch norms at their start, and the customary initialisations of layers without.
    """
    reached, norms, layers = {name}, [], []
    for node in graph.ordered():
        inputs = [n for n in node.input if n and graph.constant(n) is None]
        if len(inputs) != 1 or inputs[0] not in reached:
            continue
        if standard(node, "BatchNormalization"):
            mean, variance = (graph.constant(n) for n in node.input[3:5])
            if mean is not None and variance is not None:
                norms.append(_Known(inputs[0], 1, mean.size, mean, variance))
        elif standard(node, *AFFINE):
            reached.update(node.output)
            weight = graph.constant(node.input[1]) if standard(node, *LINEAR) else None
            if weight is not None and inputs[0] not in {k.tensor for k in layers}:
                axis = -1 if node.op_type == "MatMul" else 1
                layers.append(_Known(node.output[0], axis, _outputs(node, weight), np.zeros(()), np.ones(())))
    return norms or layers[:1]


def _outputs(node: onnx.NodeProto, weight: np.ndarray) -> int:
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0))
    return weight.shape[0 if first else -1]


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Channels stand behind the batch, or last; a flat input has none."""
    if len(shape) < 3:
        return None
    return next((a for a in (1, len(shape) - 1) if shape[a] <= MOST_CHANNELS), None)


def _only(noise: np.ndarray, axis: int | None, channel: int) -> np.ndarray:
    """Return ones in one channel."""
    values = np.zeros_like(noise)
    values[(slice(None),) * (axis or 0) + ((channel,) if axis is not None else (slice(None),))] = 1
    return values


def _responses(
    session: InferenceSession, known: list[_Known], feeds: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance per channel of the known tensors, one after the other."""
    values = [np.asarray(v) for v in session.run([k.tensor for k in known], feeds)]
    axes = [
        tuple(a for a in range(v.ndim) if a != k.axis % v.ndim) for k, v in zip(known, values, strict=True)
    ]
    return (
        np.concatenate([v.mean(axis=a, dtype=np.float64) for v, a in zip(values, axes, strict=True)]),
        np.concatenate([v.var(axis=a, dtype=np.float64) for v, a in zip(values, axes, strict=True)]),
    )
