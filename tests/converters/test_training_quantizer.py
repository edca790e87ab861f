"""The fused quantizer: what it computes and what its gradients are, at every width, zero point and value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch", reason="training needs PyTorch, which is not installed")

from farrier_converters.training.ops.quantized import fake_quantize  # noqa: E402

values = st.floats(-100, 100, width=32)


@given(
    data=st.data(),
    x=hnp.arrays(np.float32, (3, 7), elements=values),
    scale=hnp.arrays(np.float32, 3, elements=st.floats(0.0625, 4, width=32)),
    bits=st.integers(2, 8),
    uniform=st.booleans(),
)
def test_it_is_the_arithmetic_of_integers_with_straight_through_gradients(data, x, scale, bits, uniform):
    high = 2**bits - 1
    zero = data.draw(hnp.arrays(np.uint8, 3, elements=st.integers(0, high)))
    zero = np.full_like(zero, zero[0]) if uniform else zero
    inputs = torch.from_numpy(x).requires_grad_()
    scales = torch.from_numpy(scale).requires_grad_()
    found = fake_quantize(inputs, scales, torch.from_numpy(zero), axis=0, bounds=(0, high))
    found.sum().backward()
    steps = x / scale[:, None]
    integers = np.clip(np.rint(steps) + zero[:, None], 0, high)
    level = integers - zero[:, None]
    assert np.array_equal(found.detach().numpy(), (level * scale[:, None]).astype(np.float32))
    off = np.abs(steps - np.rint(steps))
    inside = np.rint(steps) == level
    sure = off < 0.499  # at the very border of a level, either answer is right
    assert np.array_equal(inputs.grad.numpy()[sure], inside[sure])
    if sure.all():
        expected = np.where(inside, level - steps, level).sum(1) / (7 * high) ** 0.5
        assert np.allclose(scales.grad.numpy(), expected, rtol=1e-3, atol=1e-2)
