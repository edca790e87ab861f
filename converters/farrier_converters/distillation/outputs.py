"""What an output of a model says (classes, yes or no, boxes, values), and how answers of that kind are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import UsageError
from farrier_contracts.tensors import DYNAMIC, TensorSpec

from ..graph.edit import Graph, attribute, standard
from ..model import Model

LOSSES = ("kl", "binary", "mse", "l1", "smooth-l1", "cosine", "none")
MOVERS = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Slice", "Cast")
BOXES = ("box", "loc", "reg", "offset")  # in the name of an output
STATES = ("state", "hidden", "present", "cache", "embed", "feature")  # in the name of an output beside others
CORNERS = 4  # numbers of a box
MAP_AXES = 4  # of an output that is a map: its classes lie along axis 1
DEPTH = 16  # operators looked at behind an output


@dataclass(frozen=True)
class Answer:
    """How one output is compared with a teacher's: `loss` is one of `LOSSES`, classes lie along `axis`.

    `tensor` is where to look, in front of a final Softmax or Sigmoid; `squashed` says that it holds probabilities
    all the same, because something stands between.
    """

    name: str
    loss: str
    tensor: str
    axis: int = -1
    squashed: bool = False


def answers_of(
    model: Model, given: Mapping[str, str] | None = None, *, labels: np.ndarray | None = None
) -> tuple[Answer, ...]:
    """Return how each output of a model is compared; `given` names losses by output and wins.

    Without a word: whole numbers are not compared; what ends in Softmax is classes, in Sigmoid yes or no; `labels` (a
    few rows) say whether the first output is classes or values; an output like an input is a state or a
    reconstruction; outputs called boxes, or of four numbers each beside others, are places; rows and sequences of
    several numbers are classes; all else is values. Raises UsageError for a loss or an output that is not known.
    """
    given = dict(given or {})
    names = {spec.name for spec in model.outputs}
    for name, loss in given.items():
        if name not in names:
            raise UsageError(f"the model has no output {name!r}; it has {', '.join(sorted(names))}")
        if loss not in LOSSES:
            raise UsageError(f"unknown loss {loss!r}; choose one of: {', '.join(LOSSES)}")
    graph = Graph(model)
    found = []
    for number, spec in enumerate(model.outputs):
        hint = None if labels is None or number else _by_labels(spec, labels)
        found.append(_answer(graph, spec, given.get(spec.name), hint, _guess(model, spec)))
    if all(answer.loss == "none" for answer in found):
        raise UsageError("no output of the model can be compared; say how, as in losses = {output = 'mse'}")
    return tuple(found)


def class_axis(shape: Sequence[int], labels: Sequence[int]) -> int | None:
    """Return the axis of an output (of this shape) that labels of that shape leave out; None where none fits.

    Free dimensions (-1) fit any size. The last axis wins over others that fit too.
    """
    if not any(len(shape) - len(labels) == missing for missing in (1, 0)):
        return None
    if len(shape) == len(labels):  # labels with an axis of one number
        labels = labels[:-1] if labels and labels[-1] == 1 else labels
    for axis in (len(shape) - 1, *range(1, len(shape) - 1)):
        rest = [*shape[:axis], *shape[axis + 1 :]]
        if len(rest) == len(labels) and all(
            a == b or DYNAMIC in (a, b) for a, b in zip(rest[1:], labels[1:], strict=True)
        ):
            return axis
    return None


def _answer(
    graph: Graph, spec: TensorSpec, given: str | None, hint: tuple[str, int] | None, guess: str
) -> Answer:
    end = _ending(graph, spec.name)
    by_end = {"Softmax": "kl", "LogSoftmax": "kl", "Sigmoid": "binary"}.get(end.op)
    loss = given or by_end or (hint[0] if hint else guess)
    if end.axis is not None:
        axis = end.axis
    elif hint is not None and hint[0] == "kl":
        axis = hint[1]
    else:
        axis = 1 if len(spec.shape) >= MAP_AXES else -1
    if loss not in ("kl", "binary") or by_end != loss:
        return Answer(spec.name, loss, spec.name, axis)
    return Answer(spec.name, loss, end.tensor, axis, end.squashed)


@dataclass(frozen=True)
class _Ending:
    op: str = ""
    tensor: str = ""
    axis: int | None = None
    squashed: bool = False


def _ending(graph: Graph, name: str) -> _Ending:
    """Return the Softmax or Sigmoid that an output ends in, also behind operators that only move numbers."""
    node, direct = graph.producer.get(name), True
    for _ in range(DEPTH):
        if node is None:
            break
        if standard(node, "Softmax", "LogSoftmax"):
            axis = attribute(node, "axis", 1 if graph.opset < 13 else -1) if direct else None
            # logarithms of probabilities are as good as logits: they differ by a constant
            inner = node.input[0] if direct else name
            return _Ending(node.op_type, inner, axis, not direct and node.op_type == "Softmax")
        if standard(node, "Sigmoid"):
            return _Ending("Sigmoid", node.input[0] if direct else name, None, not direct)
        if not standard(node, *MOVERS):
            break
        direct = direct and standard(node, "Identity")
        node = graph.producer.get(node.input[0])
    return _Ending()


def _by_labels(spec: TensorSpec, labels: np.ndarray) -> tuple[str, int] | None:
    if labels.dtype.kind == "f":
        return None if _shares(labels) else ("mse", -1)
    axis = class_axis(spec.shape, labels.shape)
    return None if axis is None or spec.shape[axis] == 1 else ("kl", axis)


def _shares(labels: np.ndarray) -> bool:
    """Say whether labels are rows of what share of each class there is, as mixing rows makes them."""
    rows = labels.ndim == 2 and labels.shape[1] > 1 and bool((labels >= 0).all())
    return rows and bool(np.allclose(labels.sum(axis=1), 1, atol=1e-3))


def _guess(model: Model, spec: TensorSpec) -> str:
    if not spec.datatype.startswith("FP"):
        return "none"
    if any(spec.shape == other.shape and spec.datatype == other.datatype for other in model.inputs):
        return "mse"
    beside, lowered = len(model.outputs) > 1, spec.name.lower()
    last = spec.shape[-1] if spec.shape else 1
    if beside and any(part in lowered for part in STATES):
        return "mse"
    if any(part in lowered for part in BOXES):
        return "smooth-l1"
    if beside and last == CORNERS and len(spec.shape) > 2:
        return "smooth-l1"
    return "kl" if len(spec.shape) in (2, 3) and last != 1 else "mse"
