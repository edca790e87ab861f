"""What an operator costs in float and in integers: a table for ONNX Runtime on x86, in nanoseconds. No graph, no I/O.

Fitted to the medians of single layers, one thread, ONNX Runtime 1.32, AVX512-VNNI. Only ratios matter: they say where
integers lose, which is where an integer kernel pays per output pixel and not per multiplication (depthwise
convolutions of few channels on large maps, stems), while the float kernel works on blocks of 16 channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BLOCK = 16  # channels that both kinds of kernel compute at a time
PACK = 4  # input channels that an integer kernel gathers fast; it gathers other numbers byte by byte
CALL = 2_000.0  # of any kernel

FLOAT_MAC = 0.009
FLOAT_STEM_MAC = 0.0145  # of at most `PACK` input channels, which are in no blocks
FLOAT_SPILL = 0.045  # per element read or written, where these are more than a cache of one core holds:
CACHED = 500_000
FLOAT_DEPTHWISE = 0.0145  # per multiplication, in the middle of a map
FLOAT_BORDER = 14  # pixels: the side of a map whose borders cost as much as its middle

INTEGER_MAC = 0.0024
INTEGER_RESULT = 0.04  # requantizing one result
INTEGER_GATHER = 0.65  # one kernel position of one output pixel, of `PACK` channels or a multiple
INTEGER_GATHER_ODD = 1.7
INTEGER_PIXEL = 0.4  # the same for a depthwise convolution, and per channel of it:
INTEGER_DEPTHWISE = 0.023
INTEGER_PARTIAL = 1.8  # times as much where less than one block of channels comes out

PRODUCT_FLOAT_MAC = 0.01  # of a product of two activations: both kinds of kernel sort the second one first
PRODUCT_INTEGER_MAC = 0.006
PRODUCT_RESULT = 0.1  # making float of one result of the integer kernel

MOVE_FLOAT = 0.15  # per element of operators that do not multiply
MOVE_INTEGER = 0.1
TO_INTEGER = 0.18  # per element: out of blocks, quantize, channels last
INPUT_TO_INTEGER = 0.23  # of what is in no blocks: a graph's input
TO_FLOAT = 0.45
PLAIN_TO_INTEGER = 0.08  # far from convolutions no channels are moved: this much, and a call of a kernel
PLAIN_TO_FLOAT = 0.07


@dataclass(frozen=True)
class Layer:
    """One multiply-accumulate operator at batch 1. `pixels` are those of its result, `side` the shorter one's.

    `moved`: elements read and written. `fed`: whether its result goes to a convolution that `widen` widens.
    """

    inputs: int
    outputs: int
    pixels: int = 1
    side: int = 1
    taps: int = 1  # positions of the kernel
    group: int = 1
    strided: bool = False
    moved: int = 0
    fed: bool = False

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.group > 1 and self.group == self.inputs == self.outputs

    @property
    def widened(self) -> Layer:
        """The layer as `widen` would leave it."""
        if self.group > 1 or self.taps == 1:
            return self
        outputs = _whole(self.outputs, BLOCK) if self.fed and self.outputs < BLOCK else self.outputs
        return replace(self, inputs=_whole(self.inputs, PACK), outputs=outputs)

    @property
    def multiplications(self) -> int:
        """Those that kernels really do: results come in whole blocks."""
        outputs = self.outputs if self.depthwise else _whole(self.outputs, BLOCK)
        return self.pixels * self.taps * outputs * (self.inputs // self.group)


def float_ns(layer: Layer) -> float:
    """Return the time of the float kernel."""
    time = CALL + (layer.moved * FLOAT_SPILL if layer.moved > CACHED else 0)
    if layer.depthwise:
        return time + layer.multiplications * FLOAT_DEPTHWISE * (1 + FLOAT_BORDER / layer.side)
    stem = layer.taps > 1 and layer.inputs <= PACK
    return time + layer.multiplications * (FLOAT_STEM_MAC if stem else FLOAT_MAC)


def integer_ns(layer: Layer) -> float:
    """Return the time of the integer kernel."""
    if layer.depthwise:
        return CALL + layer.pixels * layer.taps * (INTEGER_PIXEL + layer.outputs * INTEGER_DEPTHWISE)
    time = layer.multiplications * INTEGER_MAC + layer.pixels * layer.outputs * INTEGER_RESULT
    if layer.taps > 1 or layer.strided:
        odd = (layer.inputs // layer.group) % PACK
        time += layer.pixels * layer.taps * layer.group * (INTEGER_GATHER_ODD if odd else INTEGER_GATHER)
    return CALL + time * (INTEGER_PARTIAL if layer.outputs < BLOCK else 1)


def product_ns(multiplications: int, results: int) -> tuple[float, float]:
    """Return the times of a product of two activations, in float and in integers."""
    integer = multiplications * PRODUCT_INTEGER_MAC + results * PRODUCT_RESULT
    return CALL + multiplications * PRODUCT_FLOAT_MAC, CALL + integer


def _whole(number: int, block: int) -> int:
    return -(-number // block) * block
