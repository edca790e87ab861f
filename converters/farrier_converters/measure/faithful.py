"""Whether a machine's integer kernels give the answers that those of another processor would."""

from __future__ import annotations

from farrier_contracts.targets import Arithmetic, Target, Toolchain

# The same on every processor, to rounding; the short ones are what weights are stored in, arithmetic is float's.
FLOATS = ("fp32", "fp16", "bf16", "fp8", "nf4", "int4", "int3", "int2", "int8-weights")


def own_arithmetic(toolchain: Toolchain, machine: Target) -> Arithmetic | None:
    """Return the integer arithmetic in which the toolchain's engine is fast on `machine`, None where unknown."""
    return next((t.arithmetic for t in machine.toolchains if t.engine == toolchain.engine), None)


def faithful(toolchain: Toolchain, precision: str, machine: Target) -> bool:
    """Say whether an artifact's answers on `machine` are those that it will give where its toolchain is for.

    They are not where the machine sums products in 16 bits (see `Arithmetic.weight_bits`) and the artifact holds
    weights for a processor that does not, nor where activations have another type than the machine's kernels want:
    ONNX Runtime runs signed ones on x86 too, but saturates. Such an artifact is evaluated with `reference`.
    """
    wanted = toolchain.arithmetic
    if wanted is None or precision in FLOATS:
        return True
    own = own_arithmetic(toolchain, machine)
    return own is not None and own.activations == wanted.activations and own.weight_bits >= wanted.weight_bits
