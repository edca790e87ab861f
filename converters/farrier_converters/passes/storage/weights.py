"""Weight-only quantization: 2, 3, 4 or 8 bits per weight, or NF4, in blocks; activations stay in float32."""

from __future__ import annotations

from dataclasses import dataclass, field

from farrier_contracts.errors import UsageError

from ...graph.edit import Graph
from ...graph.upgrade import CannotUpgradeError, upgrade
from ...model import Model, opset
from ...quantize.reasons import set_reason
from ...weights import sites
from ...weights.awq import AwqSettings
from ...weights.gptq import GptqSettings
from ...weights.pools import SPLIT_OPSET
from ...weights.rest import halve_rest
from ...weights.rounding import DATA_METHODS, METHODS, Rounding, round_weights
from ...weights.sites import Bank
from ...weights.store import WIDE_OPSET, Store, kernel_reads, with_domain
from .. import Context, Pass

BITS = (2, 3, 4, 8)
THREES_OPSET = 18  # the first with bitwise operators
BLOCKS = (16, 32, 64, 128, 256)
HALVED = 8  # elements: smaller constants may be what an operator wants to see in the file
OLD = "the graph's operator set {version} knows no 4-bit integers, and raising it failed: {why}"


@dataclass(frozen=True)
class Int4Options:
    """How weights are rounded and stored.

    `method`: "gptq", "awq", both ("awq-gptq"), "mse" (each block's scale by least squared error), "rtn" (round to
    nearest, the control), or "auto": gptq where there is calibration data, else mse. `bits` per weight; tables that
    Gather reads have `table_bits` (2, 4, 8; 32 leaves them in float), or 8 where the table is the classifier too.
    `block`: weights per scale. Scales have `scale_bits` 8 (on a logarithmic grid) or 16. `symmetric` False adds a zero
    point per block. `act_order`, `damping`, `search`: see `GptqSettings`; `sequential`: let each layer see the
    rounding of those before it. `exclude`: nodes, by name, that stay in float, as do weights of fewer than
    `min_elements`. `halve_rest` stores the other constants of at least 8 elements as float16. `int8_activations` lets
    the kernel round activations to 8 bits on the fly: faster where the processor has such instructions, less exact.
    """

    method: str = "auto"
    bits: int = 4
    table_bits: int = 4
    block: int = 128
    scale_bits: int = 8
    symmetric: bool = True
    act_order: bool = True
    damping: float = 0.01
    search: bool = True
    sequential: bool = True
    exclude: tuple[str, ...] = ()
    min_elements: int = 1024
    halve_rest: bool = True
    int8_activations: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Nf4Options:
    """As `Int4Options`, with the 16 levels of NF4: no zero points, and no bits to choose."""

    method: str = "auto"
    block: int = 64
    scale_bits: int = 8
    sequential: bool = True
    exclude: tuple[str, ...] = ()
    min_elements: int = 1024
    halve_rest: bool = True
    threads: int = 1
    gptq: GptqSettings = field(default_factory=GptqSettings)


def run_int4(model: Model, options: Int4Options, context: Context) -> Model:
    """Return the model with integer weights of few bits; inputs, outputs and arithmetic stay as they are.

    Clean and fuse first. Weights of linear layers and tables are read by ONNX Runtime's own operators; others
    (convolutions) widen to float when the engine loads the file. Raises UsageError for options that no kernel knows.
    """
    if options.bits not in BITS:
        raise UsageError(f"weights have {', '.join(map(str, BITS))} bits, not {options.bits}")
    if options.table_bits not in (2, 4, 8, 32):
        raise UsageError(f"tables have 2, 4, 8 or 32 bits per weight, not {options.table_bits}")
    rounding = Rounding(
        method=_method(options.method, context),
        bits=options.bits,
        table_bits=options.table_bits,
        block=_block(options.block),
        symmetric=options.symmetric,
        sequential=options.sequential,
        scale_bits=_scale_bits(options.scale_bits),
        threads=options.threads,
        gptq=GptqSettings(options.damping, options.act_order, options.search),
        awq=AwqSettings(clip=options.search),
    )
    return _run(model, options, rounding, context, int8_activations=options.int8_activations)


def run_nf4(model: Model, options: Nf4Options, context: Context) -> Model:
    """Return the model with NF4 weights, as `run_int4`."""
    rounding = Rounding(
        method=_method(options.method, context),
        bits=4,
        table_bits=4,
        block=_block(options.block),
        nf4=True,
        sequential=options.sequential,
        scale_bits=_scale_bits(options.scale_bits),
        threads=options.threads,
        gptq=options.gptq,
    )
    return _run(model, options, rounding, context)


def _run(
    model: Model,
    options: Int4Options | Nf4Options,
    rounding: Rounding,
    context: Context,
    *,
    int8_activations: bool = False,
) -> Model:
    graph, banks = _find(model, options, rounding)
    if any(_needs(bank, rounding) > graph.opset for bank in banks):
        model, why = _raised(model, context)
        graph, banks = _find(model, options, rounding)
        banks = [bank for bank in banks if _storable(bank, graph, rounding, why)]
    found = round_weights(graph, banks, rounding, batches=context.calibration, progress=context.progress)
    store = Store(graph, precision="nf4" if rounding.nf4 else "", int8_activations=int8_activations)
    for bank, quantized in found:
        store.write(bank, quantized)
    store.finish()
    graph = Graph(graph.build())  # without what nothing reads any more
    if options.halve_rest and found:
        halve_rest(graph, min_elements=HALVED)
    return with_domain(graph.build())


def _find(model: Model, options: Int4Options | Nf4Options, rounding: Rounding) -> tuple[Graph, list[Bank]]:
    graph = Graph(model)
    exclude, tables = frozenset(options.exclude), rounding.table_bits <= 8
    return graph, sites.find(graph, exclude=exclude, min_elements=options.min_elements, tables=tables)


def _needs(bank: Bank, rounding: Rounding) -> int:
    """Return the operator set that a bank's stored form needs."""
    if rounding.nf4 or not kernel_reads(bank):
        return WIDE_OPSET
    return THREES_OPSET if rounding.bits == 3 else SPLIT_OPSET


def _raised(model: Model, context: Context) -> tuple[Model, str]:
    feeds = None if context.calibration is None else next(context.calibration(), None)
    try:
        return upgrade(model, WIDE_OPSET, feeds=feeds), ""
    except CannotUpgradeError as error:
        return model, OLD.format(version=opset(model.proto), why=error)


def _storable(bank: Bank, graph: Graph, rounding: Rounding, why: str) -> bool:
    """Leave out what the graph's operator set cannot hold, and say why."""
    if _needs(bank, rounding) <= graph.opset:
        return True
    for site in bank.sites:
        set_reason(site.node, why)
    return False


def _method(method: str, context: Context) -> str:
    if method == "auto":
        return "mse" if context.calibration is None else "gptq"
    if method not in METHODS:
        known = ", ".join(("auto", *METHODS))
        raise UsageError(f"unknown rounding method {method!r}; choose one of: {known}")
    if method in DATA_METHODS and context.calibration is None:
        raise UsageError(f"the method {method!r} needs calibration data; 'mse' and 'rtn' need none")
    return method


def _block(size: int) -> int:
    if size not in BLOCKS:
        raise UsageError(f"blocks have {', '.join(map(str, BLOCKS))} weights, not {size}")
    return size


def _scale_bits(bits: int) -> int:
    if bits not in (8, 16):
        raise UsageError(f"scales have 8 or 16 bits, not {bits}")
    return bits


INT4 = Pass("int4", Int4Options, run_int4)
NF4 = Pass("nf4", Nf4Options, run_nf4)
