"""Recurrent layers in ONNX's own weight layout: gates are put into torch's order on every run.

So the parameters that train are the model's, and go back to it unchanged in form.
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor

from farrier_contracts.errors import InputError

from ._node import Function, Node, no_autocast

LSTM_GATES = (0, 2, 3, 1)  # ONNX i o f c -> torch i f g o
GRU_GATES = (1, 0, 2)  # ONNX z r h -> torch r z n
PLAIN = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def recurrent(node: Node) -> Function:
    kind = node.proto.op_type
    direction = node.get("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    activations = [(a.decode() if isinstance(a, bytes) else a).lower() for a in node.get("activations", ())]
    if activations and activations != PLAIN[kind] * count:
        raise node.refuse(f"its activation functions are {', '.join(activations)}")
    if node.get("clip") or node.get("input_forget", 0):
        raise node.refuse("it clips its gates or couples input and forget")
    if len(node.proto.input) > 7 and node.proto.input[7]:
        raise node.refuse("it has peepholes")
    return partial(
        _recurrent,
        kind=kind,
        direction=direction,
        before=bool(node.get("linear_before_reset", 0)),
        batch_first=bool(node.get("layout", 0)),
    )


def _recurrent(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    *states: Tensor | None,
    kind: str,
    direction: str,
    before: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Return Y [seq, directions, batch, hidden], Y_h and (LSTM) Y_c."""
    if batch_first:
        x = x.transpose(0, 1)
        states = tuple(None if s is None else s.transpose(0, 1) for s in states)
    if lengths is not None and bool((lengths != x.shape[0]).any()):
        raise InputError("sequences of several lengths in one batch cannot be trained; cut them to one")
    backward = direction == "reverse"
    x = x.flip(0) if backward else x
    start = [
        s if s is not None else x.new_zeros(w.shape[0], x.shape[1], r.shape[2]) for s in (*states, None, None)
    ]
    with no_autocast(x):  # sums over many steps: in the precision of the weights
        x, start = x.to(w.dtype), [s.to(w.dtype) for s in start]
        weights = _weights(w, r, b, kind)
        if kind == "GRU" and not before:
            y, *last = _gru_reset_first(x, start[0], weights)
        else:
            y, *last = _fused(x, start, weights, kind)
    y = y.reshape(*y.shape[:2], w.shape[0], -1).transpose(1, 2)
    y = y.flip(0) if backward else y
    if batch_first:
        return (y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in last))
    return (y, *last)


def _weights(w: Tensor, r: Tensor, b: Tensor | None, kind: str) -> list[Tensor]:
    """Return torch's flat list (input, recurrent, two biases) per direction."""
    order = {"LSTM": LSTM_GATES, "GRU": GRU_GATES, "RNN": (0,)}[kind]
    hidden = r.shape[2]
    flat = []
    for direction in range(w.shape[0]):
        bias = w.new_zeros(2 * len(order) * hidden) if b is None else b[direction]
        parts = (w[direction], r[direction], *bias.chunk(2))
        flat += [_reordered(part, order, hidden) for part in parts]
    return flat


def _reordered(gates: Tensor, order: tuple[int, ...], hidden: int) -> Tensor:
    blocks = gates.split(hidden)
    return torch.cat([blocks[position] for position in order])


def _fused(x: Tensor, start: list[Tensor], weights: list[Tensor], kind: str) -> tuple[Tensor, ...]:
    both = len(weights) == 8
    # cuDNN keeps what the backward pass needs in its training mode only, which changes nothing without dropout.
    rest = (weights, True, 1, 0.0, torch.is_grad_enabled(), both, False)
    with warnings.catch_warnings():
        # Weights in ONNX's order are never one block of memory, which cuDNN would like better.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        if kind == "LSTM":
            return torch.lstm(x, start[:2], *rest)
        return (torch.gru if kind == "GRU" else torch.rnn_tanh)(x, start[0], *rest)


def _gru_reset_first(x: Tensor, start: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Apply the reset gate before the recurrent product, as Cho et al. (arXiv 1406.1078) wrote it."""
    results, last = [], []
    for direction in range(len(weights) // 4):
        w, r, wb, rb = weights[4 * direction : 4 * direction + 4]
        size = r.shape[1]
        state, found = start[direction], []
        for step in reversed(x) if direction else x:
            inner = step @ w.t() + wb
            reset, update = (
                (inner[:, : 2 * size] + state @ r[: 2 * size].t() + rb[: 2 * size]).sigmoid().chunk(2, 1)
            )
            new = torch.tanh(inner[:, 2 * size :] + (reset * state) @ r[2 * size :].t() + rb[2 * size :])
            state = (1 - update) * new + update * state
            found.append(state)
        results.append(torch.stack(found[::-1] if direction else found))
        last.append(state)
    return torch.cat(results, -1), torch.stack(last)


OPS = {"LSTM": recurrent, "GRU": recurrent, "RNN": recurrent}
