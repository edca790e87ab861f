"""The vocabulary of targets: what a board is, computes with, and is built for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

EXACT = "exact32"  # every product is summed in 32 bits
PAIRS = "pairs16"  # products of u8 and s8 are summed two by two in 16 bits, saturating (x86 `vpmaddubsw`)
HALF_EVEN = "float32-half-even"  # the sum times a float32 factor, rounded half to even: ONNX Runtime, XNNPACK
FIXED_POINT = "fixed-point"  # a 31-bit multiplier, rounded twice, half away from zero: TFLite's own kernels
RESULTS = "results"  # quantizers stand behind what integer operators make: ONNX Runtime
LITERT = "litert"  # the same, for the operators that LiteRT has integer kernels for; no kernel returns floats
INTEGERS = "integers"  # on everything that has an integer kernel, inputs and outputs too: accelerators without floats
INPUTS = "inputs"  # quantizers stand before what multiplies, and the engine fuses all between two of them: TensorRT


@dataclass(frozen=True)
class Arithmetic:
    """The integer arithmetic of one engine on one processor.

    `activations` is "u8" or "s8"; weights are always signed. `weight_bits` is what a model made for this arithmetic
    gets: 7 where two products of unsigned activations and signed weights would saturate (`accumulator` PAIRS).
    `rounding` is how a sum becomes the next 8-bit integer. `quantizers` is where the engine wants them in a graph.
    `sources` says where that is written.
    """

    activations: str
    weight_bits: int = 8
    per_channel: bool = True
    symmetric_activations: bool = False
    power_of_two_scales: bool = False  # of activations and weights: the accelerator requantizes by shifts
    accumulator: str = EXACT
    rounding: str = HALF_EVEN
    quantizers: str = RESULTS
    name: str = ""
    description: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Toolchain:
    """One way to build for and run on a target; the fields are names in the tables of their kind.

    `extra` are precisions that are tried where the model suits them or the user asks. `rules` says which unit an
    operator runs on, and `parameters` what these rules and the compiler must know of the board. `newest_operators` is
    the newest operator set that the compiler's importer reads all of, 0 where it reads what comes. `stand_in` is the
    engine that answers on a workstation where the real one cannot be had. `proven` is one plain sentence: what was run
    where, and what was only compiled.
    """

    compiler: str
    format: str
    engine: str
    precisions: tuple[str, ...]
    arithmetic: Arithmetic | None = None
    extra: tuple[str, ...] = ()
    flasher: str = "ssh"
    rules: str = "onnxruntime"
    parameters: Mapping[str, str | int | float] = field(default_factory=dict, hash=False)
    newest_operators: int = 0
    stand_in: str = ""
    proven: str = ""

    @property
    def answers_in(self) -> str:
        """The engine whose answers are judged on a workstation."""
        return self.stand_in or self.engine


@dataclass(frozen=True)
class Target:
    """A board or machine that models are fitted to.

    `sources` says where its limits come from: the name of a field, or of a toolchain's parameter, or "arithmetic",
    before the document. What is in `unconfirmed` was seen in no document: what hangs on it is a "maybe".
    """

    name: str
    description: str
    arch: str
    toolchains: tuple[Toolchain, ...]
    memory_bytes: int | None = None
    cpu_features: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    unconfirmed: tuple[str, ...] = ()
