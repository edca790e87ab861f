"""Whatever channels go, a pruned graph computes what its masked twin does: random graphs of joints."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from joints import SIDE, graphs

from farrier_contracts.errors import InputError
from farrier_converters.graph import run
from farrier_converters.model import Model
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import groups_of
from farrier_converters.pruning.mask import masked

TOLERANCE = 1e-4


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(model=graphs(), seed=st.integers(0, 2**16), share=st.sampled_from([0.2, 0.5]))
def test_any_removal_leaves_what_the_masked_twin_computes(model: Model, seed: int, share: float) -> None:
    groups = groups_of(model)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(group.units, int(np.ceil(share * (group.size - 1))), replace=False)
        for group in groups.groups
    ]
    assume(sum(map(len, chosen)))
    gone = np.concatenate(chosen)
    try:
        pruned = cut(groups, gone)
    except InputError:
        return  # some tensor would have lost everything
    onnx.checker.check_model(pruned.proto, full_check=True)
    feeds = {"x": rng.standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)}
    found, expected = (run.once(m.proto, feeds)[0] for m in (pruned, masked(groups, gone)))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, float(np.abs(expected).max()))
