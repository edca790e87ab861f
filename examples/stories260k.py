"""Build the ONNX graph of a small Llama from a file of llama2.c, with numpy and onnx alone.

    python examples/stories260k.py stories260K.repaired.bin stories260k.onnx

The file: seven little-endian int32 (width, hidden width, layers, heads, heads of keys and values, vocabulary, context),
then float32 tensors. The network is the one of Touvron et al. 2023: RMSNorm, rotary positions (on neighbouring pairs),
grouped-query attention, SwiGLU; the classifier is the embedding. Input `ids` [B, T] int64, output `logits`
[B, T, vocabulary] float32.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from language_model import EPSILON, Writer

from farrier_converters import model
from farrier_converters.graph import run

HEADER = struct.Struct("<7i")
BOS = 1


@dataclass(frozen=True)
class Llama:
    """The sizes in the file's header."""

    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int


def read(path: Path) -> tuple[Llama, dict[str, np.ndarray]]:
    """Return sizes and tensors, matrices as [inputs, outputs]; ValueError for a file that is none of llama2.c."""
    content = path.read_bytes()
    if len(content) < HEADER.size:
        raise ValueError(f"{path} is too short")
    sizes = Llama(*HEADER.unpack_from(content))
    if min(HEADER.unpack_from(content)) <= 0 or sizes.width % sizes.heads or sizes.heads % sizes.kv_heads:
        raise ValueError(f"{path} is no llama2.c file with a shared classifier")
    width, hidden, layers = sizes.width, sizes.hidden, sizes.layers
    keys, head = width // sizes.heads * sizes.kv_heads, width // sizes.heads
    shapes = {
        "tokens": (sizes.vocabulary, width), "norm1": (layers, width), "q": (layers, width, width),
        "k": (layers, keys, width), "v": (layers, keys, width), "out": (layers, width, width),
        "norm2": (layers, width), "gate": (layers, hidden, width), "down": (layers, width, hidden),
        "up": (layers, hidden, width), "norm": (width,), "cosines": (sizes.context, head // 2),
        "sines": (sizes.context, head // 2),
    }  # fmt: skip
    flat = np.frombuffer(content, "<f4", offset=HEADER.size)
    if sum(int(np.prod(shape)) for shape in shapes.values()) != flat.size:
        raise ValueError(f"{path} does not hold what its header says")
    tensors: dict[str, np.ndarray] = {}
    start = 0
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        value = flat[start : start + count].reshape(shape)
        start += count
        if len(shape) < 3 and name not in ("norm1", "norm2"):
            tensors[name] = value
        else:
            tensors.update({f"{layer}.{name}": value[layer].T for layer in range(layers)})
    return sizes, tensors


def build(sizes: Llama, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the network as ONNX."""
    g = Writer(weights)
    length = g.add("Gather", g.add("Shape", "ids"), np.array(1))
    places = g.add("Range", np.array(0), length, np.array(1))
    # [T, 1, pairs]: one row per place, for all heads
    turn = tuple(
        g.add("Unsqueeze", g.add("Gather", name, places), np.array([1])) for name in ("cosines", "sines")
    )
    x = g.add("Gather", "tokens", "ids")
    for layer in range(sizes.layers):
        x = g.add("Add", x, _attention(g, sizes, _norm(g, x, f"{layer}.norm1"), layer, length, turn))
        y = _norm(g, x, f"{layer}.norm2")
        gate = g.linear(y, f"{layer}.gate")
        gate = g.add("Mul", gate, g.add("Sigmoid", gate))
        x = g.add("Add", x, g.linear(g.add("Mul", gate, g.linear(y, f"{layer}.up")), f"{layer}.down"))
    head = g.add("Transpose", "tokens", perm=[1, 0])
    return g.build(g.add("MatMul", _norm(g, x, "norm"), head), sizes.vocabulary)


def _norm(g: Writer, x: str, name: str) -> str:
    mean = g.add("ReduceMean", g.add("Mul", x, x), axes=[-1])
    root = g.add("Sqrt", g.add("Add", mean, np.array(EPSILON, np.float32)))
    return g.add("Mul", g.add("Div", x, root), name)


def _attention(g: Writer, sizes: Llama, x: str, layer: int, length: str, turn: tuple[str, ...]) -> str:
    head, times = sizes.width // sizes.heads, sizes.heads // sizes.kv_heads

    def heads(name: str, count: int) -> str:
        return g.add("Reshape", g.linear(x, f"{layer}.{name}"), np.array([0, 0, count, head]))

    def repeated(y: str) -> str:
        """Keys or values [B, T, kv heads, head] for every head that shares them: [B, heads, T, head]."""
        wide = g.add("Concat", *[g.add("Unsqueeze", y, np.array([3]))] * times, axis=3)
        return g.add(
            "Transpose", g.add("Reshape", wide, np.array([0, 0, sizes.heads, head])), perm=[0, 2, 1, 3]
        )

    q = g.add("Transpose", _rotated(g, heads("q", sizes.heads), sizes.heads, head, turn), perm=[0, 2, 1, 3])
    k = repeated(_rotated(g, heads("k", sizes.kv_heads), sizes.kv_heads, head, turn))
    v = repeated(heads("v", sizes.kv_heads))
    scores = g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g.causal(g.add("Mul", scores, np.array(head**-0.5, np.float32)), length)
    mixed = g.add("Transpose", g.add("MatMul", g.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    return g.linear(g.add("Reshape", mixed, np.array([0, 0, sizes.width])), f"{layer}.out")


def _rotated(g: Writer, x: str, count: int, head: int, turn: tuple[str, ...]) -> str:
    """Turn neighbouring pairs of [B, T, count, head] by the angles of their place."""
    pairs = g.add("Reshape", x, np.array([0, 0, count, head // 2, 2]))
    even, odd = (g.add("Gather", pairs, np.array(i), axis=4) for i in (0, 1))
    cosine, sine = turn
    first = g.add("Sub", g.add("Mul", even, cosine), g.add("Mul", odd, sine))
    second = g.add("Add", g.add("Mul", even, sine), g.add("Mul", odd, cosine))
    both = [g.add("Unsqueeze", part, np.array([4])) for part in (first, second)]
    return g.add("Reshape", g.add("Concat", *both, axis=4), np.array([0, 0, count, head]))


def greedy(graph: model.Model, start: list[int], count: int) -> list[int]:
    """Continue a sequence of ids by the `count` likeliest, one after the other."""
    session = run.session(graph.proto)
    ids = list(start)
    for _ in range(count):
        logits = np.asarray(session.run(None, {"ids": np.array([ids])})[0])
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(start) :]


def main() -> None:
    """Read a checkpoint, write a model."""
    if len(sys.argv) != 3:
        sys.exit((__doc__ or "").split("\n\n")[1].strip())
    onnx.save(build(*read(Path(sys.argv[1]))), sys.argv[2])


if __name__ == "__main__":
    main()
