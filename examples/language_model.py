"""Quantize a language model: train a small one, export it to ONNX, store its weights in 4 bits, compare.

    python examples/language_model.py ../shared/data/tinyshakespeare/input.txt [--steps 500] [--bits 4] -o DIR

The network is a decoder of characters in the shape of GPT-2 (Radford et al. 2019), about a million parameters, trained
with torch on one thread in a few minutes. The ONNX graph is made from its weights with onnx alone: input `ids`
[B, T] int64, output `logits` [B, T, vocabulary] float32. From there on no torch is needed: GPTQ sees calibration text,
and perplexity is measured on text that neither training nor calibration has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from farrier_converters import model, passes
from farrier_converters.graph import run

OPSET = 17
EPSILON = 1e-5
BATCH = 16  # sequences per step of training and per run of evaluation
HELD_OUT = 0.1  # of the text, its end


@dataclass(frozen=True)
class Shape:
    """What the decoder looks like."""

    vocabulary: int
    width: int = 128
    layers: int = 5
    heads: int = 4
    context: int = 128


@dataclass(frozen=True)
class Text:
    """A text as character ids: `train` and `held_out` [characters] int64, and the alphabet."""

    train: np.ndarray
    held_out: np.ndarray
    alphabet: str


def read_text(path: Path) -> Text:
    """Read a text file and keep its end for evaluation."""
    text = path.read_text(encoding="utf-8")
    alphabet = "".join(sorted(set(text)))
    table = {character: number for number, character in enumerate(alphabet)}
    ids = np.array([table[character] for character in text], np.int64)
    cut = int(len(ids) * (1 - HELD_OUT))
    return Text(ids[:cut], ids[cut:], alphabet)


def train(text: Text, shape: Shape, *, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the weights after `steps` steps of AdamW with a cosine schedule; matrices are [inputs, outputs]."""
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    weights = {k: torch.nn.Parameter(v) for k, v in _initial(shape).items()}
    decayed = [v for v in weights.values() if v.ndim == 2]
    plain = [v for v in weights.values() if v.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        ids = torch.from_numpy(windows(text.train, shape.context + 1, BATCH, rng))
        logits = _forward(weights, shape, ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1:5} of {steps}  loss {loss.item():.3f}", flush=True)
    return {name: value.detach().numpy() for name, value in weights.items()}


def windows(ids: np.ndarray, length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cut `count` random windows out of a text: [count, length]."""
    starts = rng.integers(0, len(ids) - length, count)
    return np.stack([ids[start : start + length] for start in starts])


def _initial(shape: Shape) -> dict[str, Any]:
    import torch

    wide = shape.width
    found = {
        "tokens": torch.randn(shape.vocabulary, wide) * 0.02,
        "positions": torch.randn(shape.context, wide) * 0.02,
    }
    for layer in range(shape.layers):
        for name, rows, columns in (("qkv", wide, 3 * wide), ("out", wide, wide), ("up", wide, 4 * wide)):
            found[f"{layer}.{name}"] = torch.randn(rows, columns) * rows**-0.5
            found[f"{layer}.{name}.bias"] = torch.zeros(columns)
        found[f"{layer}.down"] = torch.randn(4 * wide, wide) * (4 * wide) ** -0.5 * 0.5
        found[f"{layer}.down.bias"] = torch.zeros(wide)
        for norm in ("norm1", "norm2"):
            found[f"{layer}.{norm}"], found[f"{layer}.{norm}.bias"] = torch.ones(wide), torch.zeros(wide)
    found["norm"], found["norm.bias"] = torch.ones(wide), torch.zeros(wide)
    found["head"] = torch.randn(wide, shape.vocabulary) * 0.02
    return found


def _forward(w: Mapping[str, Any], shape: Shape, ids: Any) -> Any:
    from torch.nn import functional

    def norm(x: Any, name: str) -> Any:
        return functional.layer_norm(x, x.shape[-1:], w[name], w[f"{name}.bias"], EPSILON)

    batch, length = ids.shape
    x = w["tokens"][ids] + w["positions"][:length]
    for layer in range(shape.layers):
        qkv = norm(x, f"{layer}.norm1") @ w[f"{layer}.qkv"] + w[f"{layer}.qkv.bias"]
        heads = (t.reshape(batch, length, shape.heads, -1).transpose(1, 2) for t in qkv.chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch, length, -1)
        x = x + mixed @ w[f"{layer}.out"] + w[f"{layer}.out.bias"]
        hidden = functional.gelu(norm(x, f"{layer}.norm2") @ w[f"{layer}.up"] + w[f"{layer}.up.bias"])
        x = x + hidden @ w[f"{layer}.down"] + w[f"{layer}.down.bias"]
    return norm(x, "norm") @ w["head"]


class Writer:
    """Writes an ONNX graph line by line: each call adds a node and returns the name of its result."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {name: np.asarray(value) for name, value in weights.items()}

    def add(self, op: str, *inputs: str | np.ndarray, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; arrays among its inputs become constants."""
        names = [n if isinstance(n, str) else self.constant(n) for n in inputs]
        results = [f"t{len(self.nodes)}" + (f".{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, results, name=f"{op}{len(self.nodes)}", **attributes))
        return results if outputs > 1 else results[0]

    def constant(self, value: np.ndarray) -> str:
        """Store a constant once, and return its name."""
        value = np.asarray(value)
        text = "_".join(str(size) for size in value.reshape(-1)[:6])
        name = f"c_{value.dtype.name}_{'x'.join(map(str, value.shape))}_{text}"
        self.constants[name] = value
        return name

    def linear(self, x: str, name: str) -> str:
        """x @ weight + bias; the bias may be absent."""
        y = self.add("MatMul", x, name)
        return self.add("Add", y, f"{name}.bias") if f"{name}.bias" in self.constants else y

    def causal(self, scores: str, length: str) -> str:
        """Let no position look at a later one."""
        positions = self.add("Range", np.array(0), length, np.array(1))
        later = self.add(
            "Less",
            self.add("Unsqueeze", positions, np.array([1])),
            self.add("Unsqueeze", positions, np.array([0])),
        )
        return self.add("Where", later, np.array(-1e9, np.float32), scores)

    def build(self, result: str, vocabulary: int) -> onnx.ModelProto:
        """Return the model: `ids` [B, T] to `logits` [B, T, vocabulary]."""
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes,
            "language-model",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "T"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "T", vocabulary])],
            [numpy_helper.from_array(np.asarray(v, order="C"), name) for name, v in self.constants.items()],
        )
        assert result == f"t{len(self.nodes) - 1}"
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def build(weights: Mapping[str, np.ndarray], shape: Shape) -> onnx.ModelProto:
    """Return the decoder as an ONNX graph."""
    g = Writer(weights)
    length = g.add("Gather", g.add("Shape", "ids"), np.array(1))
    head = shape.width // shape.heads
    places = g.add("Gather", "positions", g.add("Range", np.array(0), length, np.array(1)))
    x = g.add("Add", g.add("Gather", "tokens", "ids"), places)
    for layer in range(shape.layers):
        y = g.add("LayerNormalization", x, f"{layer}.norm1", f"{layer}.norm1.bias", epsilon=EPSILON)
        parts = g.add("Split", g.linear(y, f"{layer}.qkv"), np.array([shape.width] * 3), outputs=3, axis=-1)
        q, k, v = (
            g.add("Transpose", g.add("Reshape", p, np.array([0, 0, shape.heads, head])), perm=perm)
            for p, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scores = g.add("Mul", g.add("MatMul", q, k), np.array(head**-0.5, np.float32))
        mixed = g.add("MatMul", g.add("Softmax", g.causal(scores, length), axis=-1), v)
        mixed = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, shape.width]))
        x = g.add("Add", x, g.linear(mixed, f"{layer}.out"))
        y = g.add("LayerNormalization", x, f"{layer}.norm2", f"{layer}.norm2.bias", epsilon=EPSILON)
        up = g.linear(y, f"{layer}.up")
        gate = g.add("Erf", g.add("Mul", up, np.array(0.5**0.5, np.float32)))
        gate = g.add("Mul", g.add("Add", gate, np.array(1, np.float32)), np.array(0.5, np.float32))
        x = g.add("Add", x, g.linear(g.add("Mul", up, gate), f"{layer}.down"))
    x = g.add("LayerNormalization", x, "norm", "norm.bias", epsilon=EPSILON)
    return g.build(g.linear(x, "head"), shape.vocabulary)


def perplexity(graph: model.Model, sequences: np.ndarray) -> float:
    """Return exp(mean negative log likelihood) of sequences [count, length] of ids, each but its first id."""
    session = run.session(graph.proto)
    total, count = 0.0, 0
    for start in range(0, len(sequences), BATCH):
        ids = sequences[start : start + BATCH]
        logits = np.asarray(session.run(None, {"ids": ids[:, :-1]})[0], np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, ids[:, 1:, None], -1)[..., 0]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum())
        count += chosen.size
    return float(np.exp(total / count))


def batches(sequences: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Yield what a pass calibrates on."""
    for start in range(0, len(sequences), BATCH):
        yield {"ids": sequences[start : start + BATCH]}


def quantize(graph: model.Model, calibration: np.ndarray, **options: Any) -> model.Model:
    """Return the model with weights of few bits; `options` are those of the pass `int4`."""
    technique = passes.get("int4")
    context = passes.Context(calibration=lambda: batches(calibration))
    return technique.run(graph, technique.options(**options), context)


def main() -> None:
    """Train, export, quantize, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=500, help="steps of training")
    parser.add_argument("--bits", type=int, default=4, help="bits per weight: 2, 3, 4 or 8")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the two models")
    options = parser.parse_args()
    text = read_text(options.text)
    shape = Shape(len(text.alphabet))
    weights = train(text, shape, steps=options.steps)
    single = model.from_proto(build(weights, shape), "language-model")
    rng = np.random.default_rng(1)
    small = quantize(single, windows(text.train, shape.context, 64, rng), bits=options.bits, method="gptq")
    held_out = windows(text.held_out, shape.context + 1, 128, rng)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, graph in (("float32", single), (f"{options.bits}-bit", small)):
        path = options.output / f"language-model-{name}.onnx"
        model.save(graph, path)
        size = path.stat().st_size
        print(f"{name:8}  {size / 1e6:6.2f} MB  perplexity {perplexity(graph, held_out):.3f}  {path}")


if __name__ == "__main__":
    main()
