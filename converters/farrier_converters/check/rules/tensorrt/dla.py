"""What the Deep Learning Accelerator of Xavier and Orin takes; the GPU runs the rest.

Sources, by the names used below:
- T8: TensorRT 8.x developer guide, chapter 12 "Working with DLA"; T11: NVIDIA, "DLA Supported Layers and Restrictions"
  (11.4.1); DLA: NVIDIA/Deep-Learning-Accelerator-SW, operators/README.md (TensorRT 8.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ....graph.edit import Graph
from ....model import from_proto
from ...limits import Limit, OnnxTable
from ...placement import OnnxGraph, Placement
from ...site import OnnxSite
from .precision import quantized
from .release import DLA_AGAIN, ORIN, Board

UNIT, ELSEWHERE = "dla", "gpu"
LARGEST_BATCH, LARGEST_SIZE = 4096, 8192
BANKS, BANK_BYTES, ATOM_BYTES, ENTRY_BYTES = 16, 32768, 32, 128  # of the convolution buffer (CBUF)
REWRITTEN = (
    "And", "Or", "Not", "Xor", "Neg", "Gather", "GRU", "DepthToSpace", "SpaceToDepth", "ScatterElements", "Where",
)  # fmt: skip
ABSENT = (
    "GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean", "ReduceMin", "HardSwish", "HardSigmoid", "Exp",
    "Log", "Sqrt", "Elu", "Erf", "Softplus",
)  # fmt: skip
BY_REWRITE = "rewrite it as NVIDIA's Deep-Learning-Accelerator-SW shows (op_reconstruction)"
LRN_WINDOWS = (3, 5, 7, 9)


@dataclass(frozen=True)
class DlaRules:
    """Rules for a board's DLA, with the GPU as the fallback."""

    board: Board = field(default_factory=Board)
    unit: str = UNIT

    def fitted(self, parameters: Mapping[str, str | int | float]) -> DlaRules:
        """Return the rules of the board with a toolchain's parameters."""
        return DlaRules(Board.of(parameters))

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        integers = quantized(Graph(from_proto(graph.model, "check")))
        reason = self._obstacle(integers=integers)
        if reason is not None:
            return [Placement(ELSEWHERE, reason, source="T11") for _ in graph.model.graph.node]
        return table(self.board, 1 if integers else 2).place(graph)

    def _obstacle(self, *, integers: bool) -> str | None:
        if not self.board.dla_cores:
            return "this board has no DLA"
        if not self.board.has_dla:
            return f"{self.board.name} has no DLA: 10.7 was the last before 11.4"
        if integers and not self.board.dla_takes_quantizers:
            return f"the DLA of {self.board.name} takes no graph with quantizers: build fp16 for it"
        return None


def table(board: Board, value_bytes: int) -> OnnxTable:
    """Return the limits; `value_bytes` is 1 where weights and activations are INT8, 2 for FP16."""
    return OnnxTable(
        unit=UNIT,
        title="the DLA",
        source="T8; T11; DLA",
        everywhere=(
            Limit(_free, "its shapes are not fixed", "T11", "export the model with fixed sizes"),
            Limit(_beyond_batch, "its batch of {} is larger than 4096", "T11"),
            Limit(_beyond_size, "a dimension of {} is larger than 8192", "T11"),
        ),
        operators=_operators(board, value_bytes),
        cures={name: BY_REWRITE for name in REWRITTEN},
        elsewhere=ELSEWHERE,
        complete=False,
    )


def _operators(board: Board, value_bytes: int) -> dict[str, Sequence[Limit[OnnxSite]]]:
    flat = Limit(_not_image, "it does not work on images (four dimensions)", "T8; T11")
    newer = Limit[OnnxSite](
        lambda site: board.release < DLA_AGAIN, "the DLA has it from TensorRT 11.4 on", "T11"
    )
    orin = Limit[OnnxSite](lambda site: board.sm != ORIN, "Orin's DLA alone has it", "T8")
    lone = Limit(_not_flat_softmax, "its other dimensions are not 1", "T8; 8.x")
    no = Limit[OnnxSite](lambda site: True, "the DLA has none", "DLA (8.5)")
    rewritten = Limit[OnnxSite](lambda site: True, "the DLA has none itself", "DLA (8.5)", BY_REWRITE)
    doubted = Limit[OnnxSite](
        lambda site: True,
        "documents contradict each other about it",
        "T8; DLA",
        confirmed=False,
        refuses=False,
    )
    slope = Limit(_computed(1), "its slope is computed while the model runs", "T11")
    found: dict[str, Sequence[Limit[OnnxSite]]] = {
        "Conv": (flat, *_conv_limits(value_bytes)),
        "ConvTranspose": (flat, *_deconv_limits()),
        "Gemm": (Limit(_computed(1), "its weights are computed while the model runs", "DLA"),),
        "MatMul": (Limit(_computed(1), "its second factor is computed while the model runs", "DLA"),),
        "MaxPool": (flat, *_pool_limits()),
        "AveragePool": (flat, *_pool_limits()),
        "Clip": (Limit(_not_clipped_relu, "it clips to {}: from 0 to 1-127 is possible", "T8; T11"),),
        "PRelu": (slope,),
        "Concat": (
            Limit(_not_channels, "it joins along axis {}, not along channels", "T11"),
            Limit(_single, "it joins one tensor", "T11"),
        ),
        "LRN": (Limit(_lrn_window, "its window of {} is none of 3, 5, 7, 9", "T11"),),
        "Resize": (flat, Limit(_resize_scales, "it resizes by {}", "T8")),
        "Softmax": (orin,) if board.release >= DLA_AGAIN else (orin, lone),
        "Min": (doubted,),
        "BatchNormalization": (flat,),
    }
    found |= {
        name: () for name in ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Add", "Sub", "Mul", "Max", "Abs")
    }
    found |= {name: (newer,) for name in ("Div", "Pow", "Equal", "Greater", "Less")}
    found |= {name: (no,) for name in ABSENT} | {name: (rewritten,) for name in REWRITTEN}
    return found


def _conv_limits(value_bytes: int) -> tuple[Limit[OnnxSite], ...]:
    return (
        Limit(_outside(_kernel, 1, 32), "its kernel is {}: 1 to 32 are possible", "T8; T11"),
        Limit(_outside(_pads, 0, 31), "it pads by {}: 0 to 31 are possible", "T8; T11"),
        Limit(_pads_a_kernel, "it pads by {}, as much as its kernel is wide", "T8; T11"),
        Limit(_outside(_list("strides"), 1, 8), "its stride is {}: 1 to 8 are possible", "T8; T11"),
        Limit(_outside(_list("dilations"), 1, 32), "its dilation is {}: 1 to 32 are possible", "T8; T11"),
        Limit(_outside(_channels, 1, 8192), "it makes {} channels: 1 to 8192 are possible", "T8; T11"),
        Limit(_outside(_groups, 1, 8192), "it has {} groups: 1 to 8192 are possible", "T8; T11"),
        Limit(
            lambda site: _overfills(site, value_bytes),
            "its weights and rows take {} banks of the convolution buffer, which has 16",
            "T8",
        ),
    )


def _deconv_limits() -> tuple[Limit[OnnxSite], ...]:
    return (
        Limit(_outside(_pads, 0, 0), "it pads by {}: only 0 is possible", "T8; T11"),
        Limit(_outside(_groups, 1, 1), "it has {} groups: only 1 is possible", "T8; T11"),
        Limit(_outside(_list("dilations"), 1, 1), "its dilation is {}: only 1 is possible", "T8; T11"),
        Limit(_deconv_kernel, "its kernel is {}", "T8; T11"),
        Limit(_outside(_channels, 1, 8192), "it makes {} channels: 1 to 8192 are possible", "T8; T11"),
    )


def _pool_limits() -> tuple[Limit[OnnxSite], ...]:
    return (
        Limit(_outside(_list("kernel_shape"), 1, 8), "its window is {}: 1 to 8 are possible", "T8"),
        Limit(_outside(_list("strides"), 1, 16), "its stride is {}: 1 to 16 are possible", "T8"),
        Limit(_outside(_pads, 0, 7), "it pads by {}: 0 to 7 are possible", "T8"),
    )


def buffer_banks(channels: int, width: int, kernel: tuple[int, int], dilation: int, value_bytes: int) -> int:
    """Return the banks of the convolution buffer that a layer needs (T8, chapter 12): weights, and rows of its input.

    `channels` are those of the input, `dilation` is the vertical one.
    """
    weights = math.ceil(_up(channels * kernel[0] * kernel[1] * value_bytes, ENTRY_BYTES) / BANK_BYTES)
    rows = (kernel[0] - 1) * dilation + 1
    entries = math.ceil(math.ceil(channels * value_bytes / ATOM_BYTES) * width / 4)
    return weights + math.ceil(entries * rows / 256)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _overfills(site: OnnxSite, value_bytes: int) -> object:
    shape, kernel = site.type().shape, _kernel(site)
    if shape is None or len(shape) != 4 or len(kernel) != 2 or not shape[1] or not shape[3]:
        return 0
    dilation = (_list("dilations")(site) or [1])[0]
    banks = buffer_banks(shape[1], shape[3], (kernel[0], kernel[1]), dilation, value_bytes)
    return banks if banks > BANKS else 0


def _shapes(site: OnnxSite) -> list[tuple[int | None, ...]]:
    kinds = [site.type(p) for p in range(len(site.node.input)) if not site.constant(p)] + [site.output]
    return [kind.shape for kind in kinds if kind.shape is not None]


def _free(site: OnnxSite) -> object:
    return any(None in shape for shape in _shapes(site))


def _beyond_batch(site: OnnxSite) -> object:
    batches = [math.prod(n or 1 for n in shape[:-3]) for shape in _shapes(site) if len(shape) > 3]
    return max((b for b in batches if b > LARGEST_BATCH), default=0)


def _beyond_size(site: OnnxSite) -> object:
    sizes = [n or 1 for shape in _shapes(site) for n in shape[-3:]]
    return max((n for n in sizes if n > LARGEST_SIZE), default=0)


def _not_image(site: OnnxSite) -> object:
    return site.rank() not in (None, 4)


def _list(name: str) -> Callable[[OnnxSite], list[int]]:
    def read(site: OnnxSite) -> list[int]:
        found = site.attribute(name, [])
        return [int(n) for n in found] if isinstance(found, list) else []

    return read


_pads = _list("pads")


def _kernel(site: OnnxSite) -> list[int]:
    shape = site.type(1).shape or ()
    return _list("kernel_shape")(site) or [n or 1 for n in shape[2:]]


def _groups(site: OnnxSite) -> list[int]:
    found = site.attribute("group", 1)
    return [found] if isinstance(found, int) else []


def _channels(site: OnnxSite) -> list[int]:
    shape = site.output.shape
    return [shape[1]] if shape and len(shape) > 1 and shape[1] is not None else []


def _outside(numbers: Callable[[OnnxSite], list[int]], low: int, high: int) -> Callable[[OnnxSite], object]:
    """Ask for the first of some numbers that is below `low` or above `high`, as text ("" for none)."""
    return lambda site: next((str(n) for n in numbers(site) if not low <= n <= high), "")


def _pads_a_kernel(site: OnnxSite) -> object:
    pads, kernel = _pads(site), _kernel(site)
    return next((str(p) for p, k in zip(pads, [*kernel, *kernel], strict=False) if p >= k), "")


def _deconv_kernel(site: OnnxSite) -> object:
    kernel, strides = _kernel(site), _list("strides")(site)
    if len(kernel) != 2:
        return ""
    wide = kernel[0] == 1 and kernel[1] in (64, 96, 128)
    square = (
        kernel[0] == kernel[1]
        and kernel[0] >= 23
        and strides[:1] == strides[1:2]
        and (strides or [1])[0] >= 23
    )
    fits = all(1 <= k <= 32 for k in kernel) and not square
    return "" if wide or fits else "x".join(map(str, kernel))


def _computed(position: int) -> Callable[[OnnxSite], object]:
    return lambda site: not site.constant(position)


def _not_clipped_relu(site: OnnxSite) -> object:
    low, high = ((site.values(p) or [None])[0] if site.name(p) else None for p in (1, 2))
    low = site.attribute("min", low) if low is None else low
    high = site.attribute("max", high) if high is None else high
    possible = low == 0 and isinstance(high, (int, float)) and 1 <= high <= 127
    return "" if possible else f"{low} to {high}"


def _not_channels(site: OnnxSite) -> object:
    rank, axis = site.rank(), site.attribute("axis", 1)
    found = axis % rank if rank and isinstance(axis, int) else axis
    return "" if found == (1 if rank is None or rank > 1 else 0) else str(found)


def _single(site: OnnxSite) -> object:
    return len(site.node.input) < 2


def _lrn_window(site: OnnxSite) -> object:
    size = site.attribute("size", 0)
    return "" if size in LRN_WINDOWS else str(size)


def _resize_scales(site: OnnxSite) -> object:
    before, after = site.type().shape, site.output.shape
    if before is None or after is None or None in before + after or len(before) != 4:
        return ""
    scales = [(b or 0) / (a or 1) for a, b in zip(before, after, strict=True)]
    whole = site.attribute("mode", "nearest") == "nearest"
    most = 32 if whole else 4
    fits = all(1 <= s <= most and (s == int(s) or not whole) for s in scales[2:])
    return "" if scales[:2] == [1, 1] and fits else " x ".join(f"{s:g}" for s in scales)


def _not_flat_softmax(site: OnnxSite) -> object:
    shape, axis = site.type().shape, site.attribute("axis", -1)
    if shape is None or not isinstance(axis, int):
        return False
    return any(n != 1 for a, n in enumerate(shape) if a != axis % len(shape))
