"""Single operators of 8-bit integers with random data and scales, as TFLite files: what tests of kernels run on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from farrier_converters.tflite.file import Operator, Tensor, TfliteFile
from farrier_converters.tflite.versions import versioned

IMAGE = (2, 7, 9, 6)
SPREAD = 73.0  # quanta: the standard deviation of random integers


@dataclass
class Graph:
    """A file in the making; quanta are pairs of a scale (or several) and a zero point."""

    rng: np.random.Generator
    dtype: str = "int8"
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "",
        *,
        data: np.ndarray | None = None,
        scale: Any = None,
        zero: int = 0,
        axis: int = 0,
    ) -> int:
        scales = np.atleast_1d(np.asarray([] if scale is None else scale, np.float32))
        zeros = np.full(scales.size, zero, np.int64)
        index, shape = len(self.tensors), tuple(shape)
        self.tensors.append(
            Tensor(
                index,
                f"t{index}",
                dtype or self.dtype,
                shape,
                shape,
                data,
                scales,
                zeros,
                axis,
                False,
                False,
            )
        )
        return index

    def zero(self) -> int:
        """A random zero point, not at the very ends."""
        return int(self.rng.integers(-90, 90)) + (128 if self.dtype == "uint8" else 0)

    def scale(self, around: float = 0.05) -> float:
        return float(np.float32(around * math.exp(self.rng.uniform(-0.7, 0.7))))

    def input(
        self, shape: Sequence[int] = IMAGE, *, scale: float | None = None, zero: int | None = None
    ) -> int:
        scale = self.scale() if scale is None else scale
        self.inputs.append(self.tensor(shape, scale=scale, zero=self.zero() if zero is None else zero))
        return self.inputs[-1]

    def numbers(self, *values: int) -> int:
        data = np.array(values, np.int32)
        return self.tensor(data.shape, "int32", data=data)

    def array(self, data: np.ndarray, **more: Any) -> int:
        return self.tensor(data.shape, str(data.dtype), data=data, **more)

    def add(self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> TfliteFile:
        self.operators.append(Operator(len(self.operators), name, tuple(inputs), tuple(outputs), options))
        file = TfliteFile(
            tuple(self.tensors), tuple(self.operators), tuple(self.inputs), tuple(self.operators[-1].outputs)
        )
        return versioned(file)


def linear(
    g: Graph,
    name: str,
    *,
    image: Sequence[int] = IMAGE,
    filters: Sequence[int],
    axis: int,
    bias: bool = True,
    channels: bool = True,
    shape: Sequence[int] = (),
    terms: int = 0,
    **options: Any,
) -> TfliteFile:
    """An operator with weights; `axis` is that of the output channels, `shape` what TRANSPOSE_CONV is asked for."""
    x = g.input(image)
    outputs = filters[axis]
    channels = channels and g.dtype == "int8"
    scales = [g.scale(0.01) for _ in range(outputs if channels else 1)]
    low, high, zero = (-127, 128, 0) if g.dtype == "int8" else (0, 256, g.zero())
    weights = g.array(g.rng.integers(low, high, filters).astype(g.dtype), scale=scales, zero=zero, axis=axis)
    terms = terms or math.prod(filters) // outputs
    given = g.tensors[x].scales[0]
    wanted = float(given * max(scales) * SPREAD * math.sqrt(terms)) * g.rng.uniform(0.5, 2)
    more = []
    if bias:
        spread = int(SPREAD * SPREAD * math.sqrt(terms))
        offsets = g.rng.integers(-spread, spread, outputs).astype(np.int32)
        more = [g.array(offsets, scale=[float(given * s) for s in scales])]
    out = g.tensor((1,) * len(image), scale=wanted, zero=g.zero())
    inputs = [x, weights, *more]
    if shape:
        inputs = [g.numbers(*shape), weights, x, *more]
    return g.add(name, inputs, [out], **options)


def conv(g: Graph, name: str = "CONV_2D", **more: Any) -> TfliteFile:
    options = {"padding": 0, "stride_w": 1, "stride_h": 1, "activation": 0, "dilation_w": 1, "dilation_h": 1}
    return linear(g, name, **{"filters": (5, 3, 3, 6), "axis": 0, **options, **more})


def depthwise(g: Graph, multiplier: int = 1, **more: Any) -> TfliteFile:
    filters = (1, 3, 3, IMAGE[3] * multiplier)
    return conv(g, "DEPTHWISE_CONV_2D", **{"filters": filters, "axis": 3, "multiplier": multiplier, **more})


def transposed(g: Graph, shape: Sequence[int], **more: Any) -> TfliteFile:
    options = {"padding": 0, "stride_w": 2, "stride_h": 2, "activation": 0}
    return linear(
        g,
        "TRANSPOSE_CONV",
        **{"filters": (5, 3, 3, 6), "axis": 0, "shape": shape, "terms": 14, **options, **more},
    )


def dense(g: Graph, **more: Any) -> TfliteFile:
    options = {"activation": 0, "weights_format": 0, "keep_dims": 0}
    return linear(
        g, "FULLY_CONNECTED", **{"image": (3, 40), "filters": (7, 40), "axis": 0, **options, **more}
    )


def matmul(g: Graph, left: Sequence[int], right: Sequence[int], x: int = 0, y: int = 0) -> TfliteFile:
    a, b = g.input(left), g.input(right)
    scale = float(g.tensors[a].scales[0] * g.tensors[b].scales[0]) * SPREAD * 3
    out = g.tensor((1,) * len(left), scale=scale, zero=g.zero())
    return g.add("BATCH_MATMUL", [a, b], [out], adjoint_x=x, adjoint_y=y)


def binary(
    g: Graph,
    name: str,
    other: Sequence[int] = IMAGE,
    *,
    scale: float = 0.1,
    constant: bool = False,
    **options: Any,
) -> TfliteFile:
    a = g.input()
    if constant:
        low = 0 if g.dtype == "uint8" else -128
        data = g.rng.integers(low, low + 256, other).astype(g.dtype)
        b = g.array(data, scale=g.scale(), zero=g.zero())
    else:
        b = g.input(other)
    return g.add(name, [a, b], [g.tensor(IMAGE, scale=g.scale(scale), zero=g.zero())], **options)


def same(g: Graph, name: str, others: Sequence[Any] = (), **options: Any) -> TfliteFile:
    """An operator whose tensors all have one scale; `others` are shapes of further inputs, or constants."""
    scale, zero = g.scale(), g.zero()
    shape = options.pop("image", IMAGE)
    before, outputs = options.pop("before", ()), options.pop("outputs", 1)

    def operand(value: Any) -> int:
        return g.numbers(*value) if isinstance(value, list) else g.input(value, scale=scale, zero=zero)

    def numbers(value: Any) -> int:
        return g.array(value) if isinstance(value, np.ndarray) else operand(value)

    inputs = [*map(numbers, before), g.input(shape, scale=scale, zero=zero), *map(numbers, others)]
    out = [g.tensor(options.pop("shape", (1,)), scale=scale, zero=zero) for _ in range(outputs)]
    return g.add(name, inputs, out, **options)


def unary(
    g: Graph,
    name: str,
    *,
    quantum: tuple[float, int] | None = None,
    scale: float = 0.05,
    around: float = 0.05,
    zero: int | None = None,
    **options: Any,
) -> TfliteFile:
    """`quantum` is what the operator demands of its result for int8; `zero` that of the input."""
    zero = None if zero is None else zero + (128 if g.dtype == "uint8" else 0)
    x = g.input(options.pop("image", IMAGE), scale=g.scale(around), zero=zero)
    wanted = (g.scale(scale), g.zero()) if quantum is None else quantum
    if quantum is not None and g.dtype == "uint8":
        wanted = (quantum[0], quantum[1] + 128)
    out = g.tensor(IMAGE, scale=wanted[0], zero=wanted[1])
    return g.add(name, [x], [out], **options)


def reduced(g: Graph, name: str, axes: Sequence[int], *, keep: bool, alike: bool = False) -> TfliteFile:
    x = g.input()
    given = g.tensors[x]
    count = math.prod(IMAGE[a] for a in axes)
    around = (
        float(given.scales[0]) / math.sqrt(count)
        if name == "MEAN"
        else float(given.scales[0]) * math.sqrt(count)
    )
    quantum = (given.scales[0], int(given.zero_points[0])) if alike else (g.scale(around), g.zero())
    out = g.tensor((1,), scale=quantum[0], zero=quantum[1])
    return g.add(name, [x, g.numbers(*axes)], [out], keep_dims=int(keep))


def pool(g: Graph, name: str, **more: Any) -> TfliteFile:
    options = {"padding": 0, "stride_w": 2, "stride_h": 2, "filter_w": 2, "filter_h": 3, "activation": 0}
    return same(g, name, shape=(1, 1, 1, 1), **{**options, **more})


def resize(g: Graph, name: str, sizes: list[int], corners: int = 0, half: int = 0) -> TfliteFile:
    return same(g, name, [sizes], shape=(1, 1, 1, 1), align_corners=corners, half_pixel=half)


def requantize(g: Graph, into: str) -> TfliteFile:
    x = g.input()
    zero = g.zero() if into == g.dtype else g.zero() + (128 if into == "uint8" else -128)
    return g.add("QUANTIZE", [x], [g.tensor(IMAGE, into, scale=g.scale(), zero=zero)])


def quantize(g: Graph) -> TfliteFile:
    g.inputs.append(g.tensor(IMAGE, "float32"))
    return g.add("QUANTIZE", g.inputs, [g.tensor(IMAGE, scale=g.scale(), zero=g.zero())])


def dequantize(g: Graph) -> TfliteFile:
    return g.add("DEQUANTIZE", [g.input()], [g.tensor(IMAGE, "float32")])


def concat(g: Graph, shapes: Sequence[Sequence[int]], axis: int, *, alike: bool) -> TfliteFile:
    scale, zero = g.scale(), g.zero()
    parts = [g.input(s, scale=scale if alike else None, zero=zero if alike else None) for s in shapes]
    return g.add("CONCATENATION", parts, [g.tensor((1,), scale=scale, zero=zero)], axis=axis, activation=0)


def prelu(g: Graph) -> TfliteFile:
    slopes = g.rng.integers(0, 128, (1, 1, IMAGE[3])).astype(g.dtype)
    x, alphas = g.input(), g.array(slopes, scale=g.scale(0.01), zero=g.zero())
    return g.add("PRELU", [x, alphas], [g.tensor(IMAGE, scale=g.scale(), zero=g.zero())])


def place(g: Graph, name: str, axis: int) -> TfliteFile:
    return g.add(name, [g.input(), g.numbers(axis)], [g.tensor((1,), "int64")], type=4)


Build = Callable[[Graph], TfliteFile]
VALID = {"padding": 1}
STRIDE = {"stride_w": 2, "stride_h": 2}
BYTE = (1 / 256, -128)
PADS = np.array([(0, 0), (1, 2), (3, 0), (0, 0)], np.int32)
MASKS = {
    "begin_mask": 0,
    "end_mask": 0,
    "ellipsis_mask": 0,
    "new_axis_mask": 0,
    "shrink_axis_mask": 0,
    "offset": 0,
}

CASES: dict[str, Build] = {
    "conv": conv,
    "conv-relu": partial(conv, activation=1),
    "conv-relu1": partial(conv, activation=2),
    "conv-relu6-stride": partial(conv, activation=3, **STRIDE),
    "conv-valid-uneven": partial(conv, **VALID, stride_w=3),
    "conv-even-kernel": partial(conv, filters=(4, 2, 4, 6), **STRIDE),
    "conv-dilated": partial(conv, dilation_h=2, dilation_w=3),
    "conv-1x1": partial(conv, filters=(8, 1, 1, 6)),
    "conv-one-scale": partial(conv, channels=False),
    "depthwise": depthwise,
    "depthwise-doubled": partial(depthwise, multiplier=2, **STRIDE),
    "depthwise-dilated": partial(depthwise, dilation_h=2, dilation_w=2, activation=1),
    "depthwise-one-scale": partial(depthwise, channels=False, **VALID),
    "transpose-conv": partial(transposed, shape=(2, 14, 18, 5)),
    "transpose-conv-odd": partial(transposed, shape=(2, 13, 17, 5), bias=False),
    "transpose-conv-valid": partial(transposed, shape=(2, 15, 19, 5), activation=1, **VALID),
    "dense": partial(dense, channels=False),
    "dense-per-channel": partial(dense, activation=3),
    "dense-flat": partial(dense, image=(2, 4, 10), bias=False, channels=False),
    "dense-kept": partial(dense, image=(2, 3, 40), keep_dims=1),
    "add": partial(binary, name="ADD", activation=0),
    "add-relu": partial(binary, name="ADD", other=(6,), activation=1),
    "add-constant": partial(binary, name="ADD", other=(1, 7, 1, 6), constant=True, activation=3),
    "add-fine": partial(binary, name="ADD", scale=0.02, activation=0),
    "sub": partial(binary, name="SUB", activation=0),
    "sub-broadcast": partial(binary, name="SUB", other=(9, 1), activation=2),
    "mul": partial(binary, name="MUL", scale=0.2, activation=0),
    "mul-broadcast": partial(binary, name="MUL", other=(2, 1, 1, 6), scale=0.2, activation=1),
    "maximum": partial(same, name="MAXIMUM", others=[IMAGE]),
    "minimum-broadcast": partial(same, name="MINIMUM", others=[(6,)]),
    "prelu": prelu,
    **{name.lower(): partial(unary, name=name) for name in ("RELU", "RELU6", "RELU_N1_TO_1")},
    "leaky-relu": partial(unary, name="LEAKY_RELU", alpha=0.3),
    "leaky-relu-steep": partial(unary, name="LEAKY_RELU", alpha=1.7),
    "hard-swish": partial(unary, name="HARD_SWISH"),
    "hard-swish-wide": partial(unary, name="HARD_SWISH", around=0.4, scale=0.4),
    "hard-swish-narrow": partial(unary, name="HARD_SWISH", around=0.004, scale=0.01),
    "logistic": partial(unary, name="LOGISTIC", quantum=BYTE),
    "tanh": partial(unary, name="TANH", quantum=(1 / 128, 0)),
    "softmax": partial(unary, name="SOFTMAX", quantum=BYTE, beta=1.0),
    "softmax-wide": partial(unary, name="SOFTMAX", quantum=BYTE, around=0.5, image=(3, 50), beta=0.7),
    "softmax-flat": partial(unary, name="SOFTMAX", quantum=BYTE, around=0.008, image=(2, 40), beta=1.0),
    "softmax-two": partial(unary, name="SOFTMAX", quantum=BYTE, image=(40, 2), beta=1.0),
    "average-pool": partial(pool, name="AVERAGE_POOL_2D"),
    "average-pool-valid": partial(pool, name="AVERAGE_POOL_2D", activation=1, **VALID),
    "average-pool-whole": partial(pool, name="AVERAGE_POOL_2D", filter_h=7, filter_w=9, **VALID),
    "max-pool": partial(pool, name="MAX_POOL_2D"),
    "max-pool-relu6": partial(pool, name="MAX_POOL_2D", activation=3, **VALID),
    "mean-image": partial(reduced, name="MEAN", axes=(1, 2), keep=True),
    "mean-alike": partial(reduced, name="MEAN", axes=(1, 2), keep=False, alike=True),
    "mean-channels": partial(reduced, name="MEAN", axes=(3,), keep=True),
    "mean-all": partial(reduced, name="MEAN", axes=(0, 1, 2, 3), keep=False),
    "sum": partial(reduced, name="SUM", axes=(2,), keep=False),
    "reduce-max": partial(reduced, name="REDUCE_MAX", axes=(1, 3), keep=True, alike=True),
    "reduce-min": partial(reduced, name="REDUCE_MIN", axes=(2,), keep=False, alike=True),
    "arg-max": partial(place, name="ARG_MAX", axis=3),
    "arg-min": partial(place, name="ARG_MIN", axis=1),
    "l2": partial(unary, name="L2_NORMALIZATION", quantum=(1 / 128, 0), activation=0),
    **{
        f"{name.lower()}-{mode}-{size[0]}x{size[1]}": partial(resize, name=name, sizes=list(size), **flags)
        for name in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
        for size in ((14, 18), (10, 5), (3, 31))
        for mode, flags in {"plain": {}, "corners": {"corners": 1}, "half": {"half": 1}}.items()
    },
    "quantize": quantize,
    "dequantize": dequantize,
    "requantize-int8": partial(requantize, into="int8"),
    "requantize-uint8": partial(requantize, into="uint8"),
    "reshape": partial(same, name="RESHAPE", others=[[2, -1, 6]]),
    "transpose": partial(same, name="TRANSPOSE", others=[[0, 3, 1, 2]]),
    "squeeze": partial(same, name="SQUEEZE", image=(2, 1, 9, 1), axes=[1]),
    "expand-dims": partial(same, name="EXPAND_DIMS", others=[[1]]),
    "concat": partial(concat, shapes=[(2, 3, 4), (2, 5, 4)], axis=1, alike=True),
    "pad": partial(same, name="PAD", others=[PADS]),
    "mirror-pad": partial(same, name="MIRROR_PAD", others=[PADS], mode=0),
    "mirror-pad-symmetric": partial(same, name="MIRROR_PAD", others=[PADS], mode=1),
    "split": partial(same, name="SPLIT", before=[[3]], outputs=3, count=3),
    "split-v": partial(same, name="SPLIT_V", others=[[2, -1], [3]], outputs=2, count=2),
    "pack": partial(same, name="PACK", others=[IMAGE], count=2, axis=1),
    "unpack": partial(same, name="UNPACK", outputs=2, count=2, axis=0),
    "slice": partial(same, name="SLICE", others=[[0, 1, 2, 1], [-1, 3, 4, 2]], shape=(2, 3, 4, 2)),
    "strided-slice": partial(
        same,
        name="STRIDED_SLICE",
        others=[[0, 1, 7, 0], [0, 2, 0, 4], [1, 1, -2, 1]],
        **{**MASKS, "begin_mask": 1, "end_mask": 5, "shrink_axis_mask": 2},
    ),
    "gather": partial(same, name="GATHER", others=[[3, 0, 1, 1]], axis=3, batch_dims=0),
    "space-to-depth": partial(same, name="SPACE_TO_DEPTH", image=(2, 6, 8, 3), block=2),
    "depth-to-space": partial(same, name="DEPTH_TO_SPACE", image=(2, 3, 4, 8), block=2),
    "tile": partial(same, name="TILE", others=[[1, 2, 1, 3]]),
    "reverse": partial(same, name="REVERSE_V2", others=[[2]]),
}
INT8_ONLY: dict[str, Build] = {
    "log-softmax": partial(unary, name="LOG_SOFTMAX", quantum=(1 / 16, 127)),
    "log-softmax-wide": partial(unary, name="LOG_SOFTMAX", quantum=(1 / 16, 127), around=0.5, image=(3, 50)),
    "log-softmax-flat": partial(
        unary, name="LOG_SOFTMAX", quantum=(1 / 16, 127), around=0.004, image=(2, 40)
    ),
    "conv-groups": partial(conv, filters=(6, 3, 3, 2)),
    "matmul": partial(matmul, left=(2, 5, 8), right=(2, 8, 7)),
    "matmul-adjoint": partial(matmul, left=(3, 8, 5), right=(3, 7, 8), x=1, y=1),
    "squared-difference": partial(binary, name="SQUARED_DIFFERENCE", scale=0.5),
    "squared-difference-broadcast": partial(binary, name="SQUARED_DIFFERENCE", other=(6,), scale=0.5),
    "rsqrt": partial(unary, name="RSQRT", zero=-128, scale=0.02),
    "abs": partial(unary, name="ABS"),
    "exp": partial(unary, name="EXP", around=0.02, scale=0.1),
    "log": partial(unary, name="LOG", zero=-128, scale=0.03),
    "elu": partial(unary, name="ELU"),
    "gelu": partial(unary, name="GELU", approximate=0),
    "gelu-tanh": partial(unary, name="GELU", approximate=1),
    "space-to-batch": partial(
        same,
        name="SPACE_TO_BATCH_ND",
        others=[[2, 2], np.array([(1, 0), (1, 2)], np.int32)],
    ),
    "batch-to-space": partial(
        same,
        name="BATCH_TO_SPACE_ND",
        image=(8, 3, 4, 3),
        others=[[2, 2], np.array([(1, 0), (1, 2)], np.int32)],
    ),
}
UINT8_ONLY: dict[str, Build] = {
    "concat-rescaled": partial(concat, shapes=[(2, 3), (2, 5), (2, 1)], axis=1, alike=False),
}


def build(name: str, dtype: str, seed: int) -> TfliteFile:
    """One of the cases, with other data and scales for each seed."""
    cases = {**CASES, **INT8_ONLY, **UINT8_ONLY}
    return cases[name](Graph(np.random.default_rng(seed), dtype))


def feeds(file: TfliteFile, seed: int) -> dict[str, np.ndarray]:
    """Random inputs over the whole range of their types; reals of both signs."""
    rng = np.random.default_rng(seed)
    found = {}
    for tensor in (file.tensors[index] for index in file.inputs):
        if tensor.dtype == "float32":
            found[tensor.name] = (rng.normal(size=tensor.shape) * 5).astype(np.float32)
        else:
            info = np.iinfo(tensor.dtype)
            found[tensor.name] = rng.integers(info.min, info.max + 1, tensor.shape).astype(tensor.dtype)
    return found


NAMES = [
    *((name, dtype) for name in CASES for dtype in ("int8", "uint8")),
    *((name, "int8") for name in INT8_ONLY),
    *((name, "uint8") for name in UINT8_ONLY),
]
