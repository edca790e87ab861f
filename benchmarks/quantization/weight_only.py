"""What weights of few bits cost two language models in perplexity, and what they save in bytes.

    python -m benchmarks.quantization.weight_only [--shared-data ../shared/data] [--steps 1200]

A decoder of a million parameters, trained here on tinyshakespeare (once: kept in ~/.cache/farrier), and the Llama of
stories260k, each rounded to nearest, by least squared error, by GPTQ and by AWQ to 4, 3 and 2 bits, and stored in the
other precisions. Perplexity of the first on text that nothing has seen; of the second on sequences that the float model
itself wrote (seeded, other ones than those of calibration), with the Kullback-Leibler divergence from it per token and
how many of 32 greedy tokens stay. Tokens per second: one sequence at a time, float and quantized in turns, medians.
The figures: the least share of round-to-nearest's rise in log perplexity that GPTQ and AWQ take away, at 4 and 3 bits,
and how many times smaller 4-bit files are than float ones of 2 MB or more, a ResNet56 among them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farrier_converters import model, passes
from farrier_converters.graph import run

from ..figure import emit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
import language_model  # noqa: E402
import resnet20  # noqa: E402
import stories260k  # noqa: E402

CACHE = Path.home() / ".cache" / "farrier"
ROUNDS = 15
METHODS = ("rtn", "mse", "gptq", "awq", "awq-gptq")
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("bf16", {}),
    ("fp8", {}),
    ("int4", {"bits": 8, "table_bits": 8, "method": "rtn"}),
    *[("nf4", {"method": method}) for method in ("rtn", "gptq", "awq")],
    *[("int4", {"bits": bits, "method": method}) for bits in (4, 3, 2) for method in METHODS],
]
JUDGED = ("gptq", "awq")
SIZE_GOAL = 7.5
DOMINATED = 2_000_000  # bytes of a float file: in smaller ones the nodes weigh as much as 4-bit weights do


@dataclass(frozen=True)
class Subject:
    """A language model with sequences [count, length] of ids to calibrate on and to be judged by."""

    name: str
    graph: model.Model
    calibration: np.ndarray
    held_out: np.ndarray
    golden: list[int] | None = None


def shakespeare(data: Path, steps: int) -> Subject:
    source = data / "tinyshakespeare" / "input.txt"
    text = language_model.read_text(source)
    shape = language_model.Shape(len(text.alphabet))
    key = hashlib.sha256(
        source.read_bytes() + (ROOT / "examples" / "language_model.py").read_bytes()
    ).hexdigest()[:16]
    path = CACHE / f"shakespeare-{key}-{steps}.npz"
    if not path.exists():
        started = time.perf_counter()
        weights = language_model.train(text, shape, steps=steps)
        print(f"trained in {time.perf_counter() - started:.0f} s")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **weights)  # pyright: ignore[reportArgumentType]
    with np.load(path) as weights:
        graph = model.from_proto(language_model.build(dict(weights), shape), "tinyshakespeare")
    rng = np.random.default_rng(1)
    calibration = language_model.windows(text.train, shape.context, 64, rng)
    return Subject(graph.name, graph, calibration, language_model.windows(text.held_out, 129, 512, rng))


def stories(data: Path) -> Subject:
    folder = data / "stories260k"
    graph = stories260k.build(*stories260k.read(folder / "stories260K.repaired.bin"))
    single = model.from_proto(graph, "stories260k")
    golden = json.loads((folder / "golden_tokens_first32.json").read_text())["greedy"]
    if stories260k.greedy(single, [stories260k.BOS], len(golden)) != golden:
        raise SystemExit("the float model does not write the tokens that it should")
    written = sample(single, count=112, length=97, seed=0)
    return Subject("stories260k", single, written[:32, :-1], written[32:], golden)


def sample(graph: model.Model, *, count: int, length: int, seed: int) -> np.ndarray:
    """Let a model write sequences [count, length], each id drawn from what it expects."""
    rng = np.random.default_rng(seed)
    session = run.session(graph.proto)
    ids = np.full((count, 1), stories260k.BOS)
    while ids.shape[1] < length:
        logits = np.asarray(session.run(None, {"ids": ids})[0])[:, -1].astype(np.float64)
        drawn = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
        ids = np.concatenate([ids, drawn[:, None]], 1)
    return ids


def divergence(graph: model.Model, reference: model.Model, sequences: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence per token from `reference`, nats."""
    sessions = [run.session(g.proto) for g in (reference, graph)]
    total = []
    for feeds in language_model.batches(sequences):
        p, q = (_log_softmax(np.asarray(s.run(None, feeds)[0], np.float64)) for s in sessions)
        total.append((np.exp(p) * (p - q)).sum(-1).mean())
    return float(np.mean(total))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def speed(single: model.Model, quantized: model.Model, sequence: np.ndarray) -> tuple[float, float]:
    """Return tokens per second of both, one whole sequence after the other, in turns."""
    sessions = [run.session(graph.proto) for graph in (single, quantized)]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 2):
        for session, found in zip(sessions, times, strict=True):
            started = time.perf_counter()
            session.run(None, {"ids": sequence[None]})
            found.append(time.perf_counter() - started)
    first, second = (len(sequence) / float(np.median(found[2:])) for found in times)
    return first, second


def rows(subject: Subject) -> Iterator[tuple[str, str, float, float]]:
    """Print a subject's table; yield (pass and bits, method, perplexity, times smaller)."""
    size = len(subject.graph.proto.SerializeToString())
    single = language_model.perplexity(subject.graph, subject.held_out)
    print(f"\n{subject.name}: float32, {size / 1e6:.2f} MB, perplexity {single:.4f}")
    print("weights    method    perplexity     KL  smaller  tokens/s  float's  golden  seconds")
    yield "fp32", "", single, 1.0
    for name, options in WAYS:
        technique = passes.get(name)
        context = passes.Context(calibration=lambda: language_model.batches(subject.calibration))
        started = time.perf_counter()
        made = technique.run(subject.graph, technique.options(**options), context)
        seconds = time.perf_counter() - started
        found = language_model.perplexity(made, subject.held_out)
        smaller = size / len(made.proto.SerializeToString())
        kept = "" if subject.golden is None else _kept(made, subject.golden)
        before, after = speed(subject.graph, made, subject.held_out[0, :-1])
        label = f"int{options['bits']}" if name == "int4" else name
        method = options.get("method", "")
        print(
            f"{label:10} {method:9} {found:10.4f} {divergence(made, subject.graph, subject.held_out[:64, :-1]):6.4f} "
            f"{smaller:7.2f}x {after:9.0f} {before:8.0f} {kept:>7} {seconds:8.1f}",
            flush=True,
        )
        yield label, method, found, smaller


def _kept(graph: model.Model, golden: list[int]) -> str:
    written = stories260k.greedy(graph, [stories260k.BOS], len(golden))
    return f"{sum(a == b for a, b in zip(written, golden, strict=True))}/{len(golden)}"


def convolutions(data: Path) -> float:
    """Return how many times smaller the ResNet56 of CIFAR-10 gets in 4 bits."""
    folder = data / "resnet_cifar10_pth" / "pretrained_models"
    weights = resnet20.read_checkpoint(next(iter(sorted(folder.glob("resnet56*.th")))))
    graph = model.from_proto(resnet20.build(weights), "resnet56")
    for step in ("clean", "fuse"):
        graph = passes.get(step).run(graph, passes.get(step).options(), passes.Context())
    made = passes.get("int4").run(graph, passes.get("int4").options(), passes.Context())
    return len(graph.proto.SerializeToString()) / len(made.proto.SerializeToString())


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--steps", type=int, default=1200)
    options = arguments.parse_args()
    gains, sizes = [], []
    for subject in (shakespeare(options.shared_data, options.steps), stories(options.shared_data)):
        table = {(label, method): found for label, method, *found in rows(subject)}
        rise = {key: float(np.log(found[0] / table["fp32", ""][0])) for key, found in table.items()}
        for bits in ("int4", "int3"):
            for method in JUDGED:
                gains.append(1 - rise[bits, method] / rise[bits, "rtn"])
                print(f"{subject.name} {bits}: {method} takes away {gains[-1]:.0%} of what rounding costs")
        if subject.graph.proto.ByteSize() >= DOMINATED:
            sizes.append(table["int4", "gptq"][1])
    sizes.append(convolutions(options.shared_data))
    print(f"4-bit files, times smaller: tinyshakespeare, resnet56 {[round(s, 2) for s in sizes]}")
    emit("int4_size", min(sizes), goal=SIZE_GOAL, unit="x smaller")
    emit("gptq_awq_over_rtn", min(gains), goal=0.0, unit="of the rise in log perplexity")


if __name__ == "__main__":
    main()
