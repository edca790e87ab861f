"""Which operators an engine computes in integers, and how each treats its scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import rules


@dataclass(frozen=True)
class Kernels:
    """The integer kernels of one engine; the defaults are ONNX Runtime's.

    `carriers` give the result the scale of their inputs, `arithmetic` one of its own. `variadic` read all their inputs;
    operands of `constants` may be constant. Where `floats` is set, a Gemm or MatMul returns floats at no cost.
    `products` says that two tensors of activations may be multiplied. With `everywhere`, whatever has a kernel computes
    in integers, from the inputs of the graph to its outputs. Dense layers have one scale per channel, or one in all.
    """

    linear: tuple[str, ...] = rules.LINEAR
    carriers: tuple[str, ...] = rules.CARRIERS
    arithmetic: tuple[str, ...] = rules.ARITHMETIC
    variadic: tuple[str, ...] = rules.VARIADIC
    constants: tuple[str, ...] = ("Add", "Mul")
    bounded: Mapping[str, tuple[float, float]] = field(default_factory=lambda: rules.BOUNDED)
    floats: bool = True
    products: bool = True
    everywhere: bool = False
    dense_per_channel: bool = True

    @property
    def others(self) -> tuple[str, ...]:
        """Operators that compute in integers besides those with weights."""
        return (*self.carriers, *self.arithmetic)


ONNXRUNTIME = Kernels()
# LiteRT: XNNPACK's kernels and LiteRT's own beside them. Its average has the scale of its input, and no kernel
# returns floats. Sources: tensorflow lite/g3doc/performance/quantization_spec.md; delegates/xnnpack/README.md.
_CARRIERS = (
    *rules.CARRIERS,
    *("AveragePool", "SpaceToDepth", "Max", "Min", "GlobalMaxPool", "ReduceMax", "ReduceMin"),
)
_ARITHMETIC = (
    *(op for op in rules.ARITHMETIC if op not in _CARRIERS),
    *("Sub", "Tanh", "HardSigmoid", "HardSwish", "Elu", "PRelu", "ReduceMean", "Softmax"),
)
LITERT = Kernels(
    linear=rules.WEIGHTED,
    carriers=_CARRIERS,
    arithmetic=_ARITHMETIC,
    variadic=(*rules.VARIADIC, "Sub", "Max", "Min"),
    constants=("Add", "Mul", "Sub"),  # PRELU is faster in float, with a slope of floats
    bounded={**rules.BOUNDED, "Tanh": (-1.0, 127 / 128)},
    floats=False,
    products=False,  # its integer kernel takes 40 times as long as the float one
)
# Accelerators that take nothing but integers. Their compilers want one scale for the weights of a dense layer.
INTEGERS_ONLY = Kernels(
    linear=LITERT.linear,
    carriers=LITERT.carriers,
    arithmetic=(*LITERT.arithmetic, "LogSoftmax", "ReduceSum"),
    variadic=LITERT.variadic,
    constants=(*LITERT.constants, "PRelu"),
    bounded={**LITERT.bounded, "LogSoftmax": (-255 / 16, 0.0)},
    floats=False,
    everywhere=True,
    dense_per_channel=False,
)
