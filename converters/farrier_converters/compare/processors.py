"""What B's integers do on a processor that this machine need not be: pairs of products that saturate in 16 bits."""

from __future__ import annotations

import numpy as np

from farrier_contracts.errors import InputError
from farrier_contracts.targets import ARITHMETICS

from ..data import Dataset
from ..emulate import Emulator, fits
from ..graph import run
from ..graph.edit import Graph
from ..model import Model
from .causes import Cure, Finding
from .causes.model import PAIR_SATURATION, Place
from .probe import decibels
from .quantizers import find

EXACT, PAIRS = ARITHMETICS["x86-vnni"], ARITHMETICS["x86-avx2"]
MULTIPLY_ADDS = 2e9  # emulated at most, beyond the first run
LEAST_PART = 0.5  # of the outputs' squared error there: less is what rounding makes anyway
SAFE_BITS = 7


def pair_saturation(a: Model, b: Model, rows: Dataset) -> Finding | None:
    """Say where B answers otherwise on x86 without VNNI than with it, by more than it differs from A anyway.

    B is emulated in both arithmetics on some of the rows; None where it is not made for them, nothing saturates,
    or A is no float model.
    """
    quantizers = find(Graph(b))
    if not quantizers.activations or quantizers.signed or not fits(b, PAIRS) or find(Graph(a)).activations:
        return None
    exact, paired = Emulator(b, EXACT), Emulator(b, PAIRS)
    session, names = run.session(a.proto), [spec.name for spec in a.outputs]
    signal = rounding = saturating = 0.0
    try:
        for feeds, _ in rows.batches(rows.fixed_batch or 1):
            wanted = dict(zip(names, session.run(names, feeds), strict=True))
            right, wrong = exact.run(feeds), paired.run(feeds)
            for name in (n for n in wanted if n in right and np.asarray(wanted[n]).dtype.kind == "f"):
                values = np.asarray(wanted[name], np.float64)
                signal += float(np.square(values).sum())
                rounding += float(np.square(right[name] - values).sum())
                saturating += float(np.square(wrong[name].astype(np.float64) - right[name]).sum())
            if exact.multiply_adds > MULTIPLY_ADDS:
                break
    except (InputError, *run.runtime_errors()):
        return None
    if saturating < LEAST_PART * (saturating + rounding) or not saturating:
        return None
    return _finding(
        b, paired, decibels(signal, rounding), decibels(signal, rounding + saturating), saturating, rounding
    )


def _finding(
    b: Model, paired: Emulator, good: float, bad: float, saturating: float, rounding: float
) -> Finding:
    worst = max(paired.saturation, key=lambda name: paired.saturation[name].saturated)
    found = paired.saturation[worst]
    share = found.saturated / max(found.pairs, 1)
    node = next((n for n in Graph(b).nodes if worst in (n.name, *n.output)), None)
    place = Place(node.output[0] if node else worst, worst, node.op_type if node else "")
    return Finding(
        PAIR_SATURATION,
        place,
        saturating / (saturating + rounding),
        f"on x86 processors without VNNI, {share:.2%} of the pairs of products in {worst} do not fit into 16 bits: "
        f"the outputs are at {bad:.0f} dB there, at {good:.0f} dB elsewhere",
        Cure("use weights of 7 bits, in which nothing can saturate", weight_bits=SAFE_BITS),
        {"saturated": share, "snr_db": good, "snr_db_without_vnni": bad},
    )
