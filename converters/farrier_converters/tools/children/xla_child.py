"""JAX writes an exported program as StableHLO, which XLA compiles on the machine that has the accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Write `source` (.pt2) to `target` as portable StableHLO bytecode for `platform`, weights within.

    Products keep float32: left alone, a TPU computes them in bfloat16.
    """
    import jax  # pyright: ignore[reportMissingImports]
    import torch

    with _lost_overloads():
        from torchax.export import exported_program_to_jax  # pyright: ignore[reportMissingImports]

    program: Any = torch.export.load(request["source"])
    states, function = exported_program_to_jax(program)
    example = [jax.numpy.asarray(value.numpy()) for value in program.example_inputs[0]]
    with jax.default_matmul_precision("highest"):
        lowered = jax.export.export(
            jax.jit(lambda *inputs: function(states, inputs)), platforms=[request["platform"]]
        )
        exported = lowered(*example)
    Path(request["target"]).write_bytes(exported.mlir_module_serialized)
    return {"version": jax.__version__}


@contextmanager
def _lost_overloads() -> Iterator[None]:
    """Let torchax 0.0.13 name overloads that newer versions of torch took out: it lists them, and calls none."""
    import torch

    packets: Any = torch._ops.OpOverloadPacket
    find = packets.__getattr__

    def forgiving(packet: Any, name: str) -> Any:
        try:
            return find(packet, name)
        except AttributeError:
            return f"{packet}.{name}"

    packets.__getattr__ = forgiving
    try:
        yield
    finally:
        packets.__getattr__ = find
