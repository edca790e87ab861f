"""LSTM, GRU and RNN, unrolled: one dense layer over all steps for the input, one per step for the state.

TFLite's own sequence layers keep their state from one call to the next, which ONNX's do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....tflite import layout
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from .activation import hard_sigmoid, softsign

MAX_STEPS = 512  # beyond, a file has more operators than an engine plans in reasonable time
State = Held | None  # None is zero
FUNCTIONS: dict[str, Callable[[Builder, Held], Held]] = {
    "Sigmoid": lambda b, x: b.unary("LOGISTIC", x),
    "Tanh": lambda b, x: b.unary("TANH", x),
    "Relu": lambda b, x: b.unary("RELU", x),
    "HardSigmoid": lambda b, x: hard_sigmoid(b, x, 0.2, 0.5),
    "Softsign": softsign,
}


@dataclass(frozen=True)
class _Cell:
    """One direction: weights [gates * hidden, ...], biases [gates * hidden]; None is zero."""

    weight: Held
    recurrence: Held
    bias: State
    recurrent_bias: State
    peepholes: list[Held] | None
    functions: list[str]
    hidden: int
    clip: float | None
    linear_before_reset: bool
    input_forget: bool

    def apply(self, b: Builder, index: int, x: Held) -> Held:
        """Apply the activation function at a position of the node's list."""
        if self.clip is not None:
            x = b.binary("MINIMUM", b.binary("MAXIMUM", x, -self.clip), self.clip)
        return FUNCTIONS[self.functions[index]](b, x)


Step = Callable[[Builder, _Cell, Held, State, State], tuple[Held, State]]


def _dense(b: Builder, x: Held, weight: Held, bias: State) -> Held:
    return b.op(
        "FULLY_CONNECTED", [x, weight, bias], (*x.shape[:-1], weight.shape[0]), keep_dims=int(x.rank != 2)
    )


def _plus(b: Builder, x: Held, y: State) -> Held:
    return x if y is None else b.binary("ADD", x, y)


def _parts(b: Builder, x: State, count: int) -> list[State]:
    return [None] * count if x is None else [*b.parts(x, count, axis=x.rank - 1)]


def _lstm_step(b: Builder, cell: _Cell, x: Held, h: State, c: State) -> tuple[Held, State]:
    """Gates in ONNX's order: input, output, forget, cell."""
    gates = (
        _plus(b, x, cell.recurrent_bias)
        if h is None
        else b.binary("ADD", x, _dense(b, h, cell.recurrence, cell.recurrent_bias))
    )
    i, o, f, g = b.parts(gates, 4, axis=1)
    if cell.peepholes and c is not None:
        i, f = (
            b.binary("ADD", gate, b.binary("MUL", c, p))
            for gate, p in ((i, cell.peepholes[0]), (f, cell.peepholes[2]))
        )
    i, g = cell.apply(b, 0, i), cell.apply(b, 1, g)
    f = b.op("SUB", [b.constant(1.0, "float32"), i], i.shape) if cell.input_forget else cell.apply(b, 0, f)
    new = b.binary("MUL", i, g)
    if c is not None:
        new = b.binary("ADD", b.binary("MUL", f, c), new)
    if cell.peepholes:
        o = b.binary("ADD", o, b.binary("MUL", new, cell.peepholes[1]))
    return b.binary("MUL", cell.apply(b, 0, o), cell.apply(b, 2, new)), new


def _gru_step(b: Builder, cell: _Cell, x: Held, h: State, _c: State) -> tuple[Held, State]:
    """Gates in ONNX's order: update, reset, hidden."""
    xz, xr, xh = b.parts(x, 3, axis=1)
    bz, br, bh = _parts(b, cell.recurrent_bias, 3)
    if h is None:
        update, reset = cell.apply(b, 0, _plus(b, xz, bz)), cell.apply(b, 0, _plus(b, xr, br))
        inner = bh if bh is None or not cell.linear_before_reset else b.binary("MUL", reset, bh)
        new = cell.apply(b, 1, _plus(b, xh, inner))
        return b.binary("MUL", b.op("SUB", [b.constant(1.0, "float32"), update], update.shape), new), None
    wz, wr, wh = b.parts(cell.recurrence, 3)
    update = cell.apply(b, 0, b.binary("ADD", xz, _dense(b, h, wz, bz)))
    reset = cell.apply(b, 0, b.binary("ADD", xr, _dense(b, h, wr, br)))
    if cell.linear_before_reset:
        inner = b.binary("MUL", reset, _dense(b, h, wh, bh))
    else:
        inner = _dense(b, b.binary("MUL", reset, h), wh, bh)
    new = cell.apply(b, 1, b.binary("ADD", xh, inner))
    rest = b.op("SUB", [b.constant(1.0, "float32"), update], update.shape)
    return b.binary("ADD", b.binary("MUL", rest, new), b.binary("MUL", update, h)), None


def _rnn_step(b: Builder, cell: _Cell, x: Held, h: State, _c: State) -> tuple[Held, State]:
    if h is None:
        return cell.apply(b, 0, _plus(b, x, cell.recurrent_bias)), None
    return cell.apply(b, 0, b.binary("ADD", x, _dense(b, h, cell.recurrence, cell.recurrent_bias))), None


def _recurrent(gates: int, functions: list[str], step: Step, b: Builder, node: Node) -> None:
    batch_first = bool(node.attr("layout", 0))
    x = node.input(0)
    held = b.get(x, (1, 0, 2) if batch_first else None)
    steps, rows, width = held.shape
    if layout.free(steps) or steps > MAX_STEPS:
        raise UnsupportedError(Code.SHAPE, f"{steps} steps (at most {MAX_STEPS} are unrolled)")
    directions = 2 if node.attr("direction", "forward") == "bidirectional" else 1
    cells = _cells(b, node, gates, functions, directions)
    outputs: list[list[Held]] = []
    hs: list[State] = _states(b, node, 5, directions, batch_first)
    cs: list[State] = _states(b, node, 6, directions, batch_first) if gates == 4 else [None] * directions
    for d, cell in enumerate(cells):
        flat = b.reshape(held, (steps * rows, width))
        projected = b.reshape(_dense(b, flat, cell.weight, cell.bias), (steps, rows, cell.weight.shape[0]))
        slices = b.ops("UNPACK", [projected], [projected.shape[1:]] * steps, None, count=steps, axis=0)
        backwards = d == 1 or node.attr("direction", "forward") == "reverse"
        made, hs[d], cs[d] = _unroll(b, node, cell, slices, (hs[d], cs[d]), step, backwards=backwards)
        outputs.append(made)
    _put(b, node, outputs, hs, cs, batch_first)


def _unroll(
    b: Builder,
    node: Node,
    cell: _Cell,
    slices: list[Held],
    start: tuple[State, State],
    step: Step,
    *,
    backwards: bool,
) -> tuple[list[Held], State, State]:
    h, c = start
    made: list[Held | None] = [None] * len(slices)
    lengths = _lengths(node, len(slices))
    for t in reversed(range(len(slices))) if backwards else range(len(slices)):
        new, cell_state = step(b, cell, slices[t], h, c)
        if lengths is None:
            h, c, made[t] = new, cell_state, new
            continue
        shape = (new.shape[0], 1)
        limit = b.reshape(b.get(lengths), shape)
        live = b.op("GREATER", [limit, b.constant(t, limit.dtype)], shape, "bool")
        made[t] = _kept(b, live, new, None)
        h = _kept(b, live, new, h)
        c = None if cell_state is None else _kept(b, live, cell_state, c)
    return [m for m in made if m is not None], h, c


def _kept(b: Builder, live: Held, new: Held, old: State) -> Held:
    other = b.constant(0.0, "float32") if old is None else old
    return b.op("SELECT_V2", [live, new, other], new.shape, new.dtype)


def _lengths(node: Node, steps: int) -> Value | None:
    value = node.optional(4)
    if value is None or (value.constant is not None and (value.constant == steps).all()):
        return None
    return value


def _cells(b: Builder, node: Node, gates: int, functions: list[str], directions: int) -> list[_Cell]:
    hidden = int(node.attr("hidden_size") or node.input(2).shape[2])
    names = [
        f.decode() if isinstance(f, bytes) else f for f in node.attr("activations") or functions * directions
    ]
    unknown = sorted(set(names) - FUNCTIONS.keys())
    if unknown or node.attr("activation_alpha") or node.attr("activation_beta"):
        raise UnsupportedError(Code.ATTRIBUTE, f"activations {names}")
    each = len(functions)
    cells = []
    for d in range(directions):
        weight, recurrence = (_direction(b, node.input(i), d, directions) for i in (1, 2))
        bias = None if node.optional(3) is None else _direction(b, node.input(3), d, directions)
        biases = [None, None] if bias is None else [*b.parts(bias, 2)]
        holes = node.optional(7) if gates == 4 else None
        cells.append(
            _Cell(
                weight,
                recurrence,
                biases[0],
                biases[1],
                None if holes is None else b.parts(_direction(b, holes, d, directions), 3),
                names[d * each : (d + 1) * each],
                hidden,
                node.attr("clip"),
                bool(node.attr("linear_before_reset", 0)),
                bool(node.attr("input_forget", 0)),
            )
        )
    return cells


def _direction(b: Builder, value: Value, d: int, directions: int) -> Held:
    part = b.parts(b.get(value), directions)[d]
    return b.reshape(part, part.shape[1:])


def _states(b: Builder, node: Node, position: int, directions: int, batch_first: bool) -> list[State]:
    value = node.optional(position)
    if value is None or (value.constant is not None and not value.constant.any()):
        return [None] * directions
    held = b.get(value, (1, 0, 2) if batch_first else None)
    return [b.reshape(part, part.shape[1:]) for part in b.parts(held, directions)]


def _put(
    b: Builder, node: Node, outputs: list[list[Held]], hs: list[State], cs: list[State], batch_first: bool
) -> None:
    directions = len(outputs)
    rows, hidden = outputs[0][0].shape
    sequence, *states = (*node.outputs, None, None)[:3]
    if sequence is not None:
        flat = [b.reshape(h, (1, 1, rows, hidden)) for t in zip(*outputs, strict=True) for h in t]
        joined = (
            flat[0] if len(flat) == 1 else b.op("CONCATENATION", flat, (len(flat), 1, rows, hidden), axis=0)
        )
        whole = b.reshape(joined, (len(outputs[0]), directions, rows, hidden))
        b.put(sequence, whole, (1, 2, 0, 3) if batch_first else None)
    for output, held in zip(states, (hs, cs), strict=True):
        known = [h for h in held if h is not None]
        if output is None or not known:
            continue
        parts = [b.reshape(h, (1, rows, hidden)) for h in known]
        whole = (
            parts[0] if directions == 1 else b.op("CONCATENATION", parts, (directions, rows, hidden), axis=0)
        )
        b.put(output, whole, (1, 0, 2) if batch_first else None)


def _lstm(b: Builder, node: Node) -> None:
    _recurrent(4, ["Sigmoid", "Tanh", "Tanh"], _lstm_step, b, node)


def _gru(b: Builder, node: Node) -> None:
    _recurrent(3, ["Sigmoid", "Tanh"], _gru_step, b, node)


def _rnn(b: Builder, node: Node) -> None:
    _recurrent(1, ["Tanh"], _rnn_step, b, node)


RECURRENT: dict[str, Handler] = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
