"""From a graph's weights to codes: one method for all of them, in the order in which the network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from farrier_contracts.errors import UsageError

from ..graph import edit
from ..graph.edit import Graph, attribute, standard
from .awq import AwqSettings, awq, search_scales
from .gptq import GptqSettings, gptq
from .grid import NF4, Grid, Quantized, into_blocks, round_to_nearest
from .moments import Tap, second_moments, tap_of
from .scales import HEADROOM, HalfScales, ScaleForm, SingleScales, halves_fit, log_scales
from .sites import CONV, LINEAR, SMALLEST_BLOCK, TABLE, Bank, whole_blocks
from .store import kernel_reads, put_back

METHODS = ("rtn", "mse", "gptq", "awq", "awq-gptq")
DATA_METHODS = ("gptq", "awq", "awq-gptq")
TIED_BITS = 8  # of weights that a network begins and ends with: errors in them count twice
SCALED_METHODS = ("awq", "awq-gptq")
AWQ_HEADROOM = 4 * HEADROOM  # columns are scaled, and their blocks with them


@dataclass(frozen=True)
class Rounding:
    """How weights become codes. Blocks are along a row; 2, 3, 4 or 8 bits, or 4 with `codebook`."""

    method: str
    bits: int
    table_bits: int
    block: int
    symmetric: bool = True
    nf4: bool = False
    scale_bits: int = 8
    scale_form: ScaleForm | None = None  # one for all, or by matrix
    sequential: bool = True  # each layer sees what the rounded layers before it compute
    moment_bytes: int = 1 << 28  # of second moments held at once
    threads: int = 1
    gptq: GptqSettings = field(default_factory=GptqSettings)
    awq: AwqSettings = field(default_factory=AwqSettings)


@dataclass(frozen=True, eq=False)
class _Stage:
    """Banks that read the same inputs, and how far into the graph that is."""

    taps: tuple[Tap, ...]
    banks: list[Bank]
    place: int


def round_weights(
    graph: Graph,
    banks: list[Bank],
    options: Rounding,
    *,
    batches: Callable[[], Iterator[dict[str, np.ndarray]]] | None,
    progress: Callable[[str, float], None],
) -> list[tuple[Bank, Quantized]]:
    """Return the codes of every bank; the graph then computes in float what they stand for.

    AWQ's factors go into the norm or product before a layer where nothing else reads it, else into a Mul of their own.
    Raises UsageError where the method needs data and there is none, InputError for data that does not fit.
    """
    if options.method in DATA_METHODS and batches is None:
        raise UsageError(
            f"the method {options.method!r} needs calibration data; give some with --data or --calib, "
            "or choose 'mse', which needs none"
        )
    options = _with_scales(graph, banks, options)
    found: list[tuple[Bank, Quantized]] = []
    stages, plain = _stages(graph, banks, options)
    for bank in plain:
        quantized = _plain(bank.matrix(graph), _grid(bank, graph, options), block_of(bank, options), options)
        found.append((bank, quantized))
    # what comes first in the network is rounded first, so that later layers can see it
    for bank, quantized in found:
        put_back(graph, bank, quantized.values())
    still = None if options.sequential else graph.build()
    for number, part in enumerate(_chunks(stages, options)):
        model = still or graph.build()
        taps = list(dict.fromkeys(tap for stage in part for tap in stage.taps))
        assert batches is not None
        moments = second_moments(model, taps, batches, threads=options.threads)
        for stage in part:
            found.extend(
                _round_stage(graph, stage, np.sum([moments[tap] for tap in stage.taps], axis=0), options)
            )
        progress("round weights", (number + 1) / max(1, len(stages)))
    return found


def block_of(bank: Bank, options: Rounding) -> int:
    """Return a block's size: that of the options, or less where rows are short.

    Gather's kernel wants rows of whole blocks, and so does the one for NF4. What widens at load takes any divisor.
    """
    columns = bank.shape[1]
    if not kernel_reads(bank) or (options.nf4 and not whole_blocks(columns)):
        count = max(1, round(columns / options.block))
        divisors = (n for n in range(count, 4 * count + 1) if columns % n == 0)
        return columns // next(divisors, 1)
    size = options.block
    while size > SMALLEST_BLOCK and (
        size >= 2 * columns or ((TABLE in bank.kinds or options.nf4) and columns % size)
    ):
        size //= 2
    return size


def _grid(bank: Bank, graph: Graph, options: Rounding) -> Grid:
    bits = _bits(bank, options)
    form = options.scale_form
    if form is None:
        levels = 1 if options.nf4 else 1 << (bits - 1)
        fits = halves_fit(_peaks(bank, graph, options), levels)
        form = HalfScales() if fits else SingleScales()
    if options.nf4:
        return Grid(4, codebook=NF4, scale_form=form)
    return Grid(bits, options.symmetric, scale_form=form)


def _bits(bank: Bank, options: Rounding) -> int:
    if options.nf4:
        return 4
    bits = TIED_BITS if {TABLE, LINEAR} <= bank.kinds else options.bits
    if bank.kinds == {TABLE}:
        bits = options.table_bits
    return max(bits, 4) if not kernel_reads(bank) else bits  # no container of fewer bits widens in one step


def _peaks(bank: Bank, graph: Graph, options: Rounding) -> np.ndarray:
    return np.abs(into_blocks(bank.matrix(graph), block_of(bank, options))).max(-1)


def _with_scales(graph: Graph, banks: list[Bank], options: Rounding) -> Rounding:
    """Give the options the grid of scales that all banks share, where scales have 8 bits."""
    if options.scale_bits != 8:
        return options
    peaks = (
        _peaks(bank, graph, options) / (1 if options.nf4 else 1 << (_bits(bank, options) - 1))
        for bank in banks
    )
    headroom = AWQ_HEADROOM if options.method in SCALED_METHODS else HEADROOM
    return replace(options, scale_form=log_scales(peaks, headroom=headroom))


def _plain(matrix: np.ndarray, grid: Grid, size: int, options: Rounding) -> Quantized:
    return round_to_nearest(matrix, grid, size, search=options.method != "rtn")


def _stages(graph: Graph, banks: list[Bank], options: Rounding) -> tuple[list[_Stage], list[Bank]]:
    """Sort banks by what they read; those without inputs to learn from come apart, to be rounded plainly."""
    place = {name: number for number, node in enumerate(graph.ordered()) for name in node.output}
    stages: dict[tuple[tuple[Tap, ...], bool], _Stage] = {}
    plain = []
    for bank in banks:
        taps = tuple(
            dict.fromkeys(
                tap_of(site, bank.shape[1], graph.initializers[site.weight].dims[2:])
                for site in bank.sites
                if site.kind in (LINEAR, CONV)
            )
        )
        if not taps or options.method not in DATA_METHODS:
            plain.append(bank)
            continue
        tied = (
            TABLE in bank.kinds
        )  # the network's first layers read it: it goes first, rounded for its last ones
        where = -1 if tied else max(place.get(tap.tensor, -1) for tap in taps)
        stages.setdefault((taps, tied), _Stage(taps, [], where)).banks.append(bank)
    return sorted(stages.values(), key=lambda stage: stage.place), plain


def _chunks(stages: list[_Stage], options: Rounding) -> Iterator[list[_Stage]]:
    if options.sequential:
        yield from ([stage] for stage in stages)
        return
    part: list[_Stage] = []
    held = 0
    for stage in stages:
        size = sum(8 * tap.columns**2 for tap in stage.taps)
        if part and held + size > options.moment_bytes:
            yield part
            part, held = [], 0
        part.append(stage)
        held += size
    if part:
        yield part


def _round_stage(
    graph: Graph, stage: _Stage, moments: np.ndarray, options: Rounding
) -> list[tuple[Bank, Quantized]]:
    scaled = options.method in SCALED_METHODS
    if scaled and _scalable(graph, stage):
        moments = _scale_inputs(graph, stage, moments, options)
    found = []
    for bank in stage.banks:
        matrix, grid, size = bank.matrix(graph), _grid(bank, graph, options), block_of(bank, options)
        if options.method == "awq":
            quantized = awq(matrix, moments, grid, size, options.awq)
        else:
            quantized = gptq(matrix, moments, grid, size, options.gptq)
        put_back(graph, bank, quantized.values())
        found.append((bank, quantized))
    return found


def _scalable(graph: Graph, stage: _Stage) -> bool:
    """Say whether the input of these layers may be scaled: one tensor, read by linear layers."""
    return len(stage.taps) == 1 and all(site.kind == LINEAR for bank in stage.banks for site in bank.sites)


def _scale_inputs(graph: Graph, stage: _Stage, moments: np.ndarray, options: Rounding) -> np.ndarray:
    """Multiply the columns of a stage's weights and divide its inputs; return the new inputs' second moments."""
    matrices = [bank.matrix(graph) for bank in stage.banks]
    bank = stage.banks[0]
    factors = search_scales(
        matrices, moments, _grid(bank, graph, options), block_of(bank, options), options.awq
    )
    if (factors == 1).all():
        return moments
    for each, matrix in zip(stage.banks, matrices, strict=True):
        put_back(graph, each, matrix * factors)
    nodes = [site.node for each in stage.banks for site in each.sites]
    _divide(graph, stage.taps[0].tensor, nodes, factors)
    return moments / np.outer(factors, factors).astype(np.float64)


def _divide(graph: Graph, tensor: str, readers: list[onnx.NodeProto], factors: np.ndarray) -> None:
    inverse = np.float32(1) / factors
    graph.index()
    maker = graph.producer.get(tensor)
    alone = not graph.kept(tensor) and {id(n) for n in graph.readers[tensor]} == {id(n) for n in readers}
    if alone and maker is not None and _fold_factors(graph, maker, inverse):
        return
    scaled = graph.fresh(f"{tensor}_scaled")
    graph.add_node("Mul", [tensor, graph.add_constant(f"{tensor}_factors", inverse)], scaled)
    for node in readers:
        edit.replace(node.input, tensor, scaled)
    graph.index()


def _fold_factors(graph: Graph, maker: onnx.NodeProto, inverse: np.ndarray) -> bool:
    """Multiply the last axis of a node's result within the node itself: a norm's or product's own constants."""
    if standard(maker, "LayerNormalization") and attribute(maker, "axis", -1) == -1:
        positions = [1, 2] if len(maker.input) > 2 and maker.input[2] else [1]
    elif standard(maker, "Mul"):
        positions = [p for p in (0, 1) if graph.constant(maker.input[p]) is not None][:1]
    else:
        return False
    values = [graph.constant(maker.input[p]) for p in positions]
    if not values or any(v is None or v.size != inverse.size or v.shape[-1] != inverse.size for v in values):
        return False
    for position, value in zip(positions, values, strict=True):
        assert value is not None
        maker.input[position] = graph.add_constant(
            f"{maker.input[position]}_awq", value * inverse.astype(value.dtype)
        )
    graph.index()
    return True
