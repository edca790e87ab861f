"""Bias correction: logits come nearer to the float ones, and where they do not it is left out."""

from __future__ import annotations

import numpy as np
import pytest

from farrier_contracts.targets import Arithmetic
from farrier_converters import passes


@pytest.fixture(scope="module")
def error(resnet20, apply, cifar10, outputs):
    """Root mean square error of the logits on pictures that did not calibrate."""
    images, others = cifar10[0][:256], {"images": cifar10[0][512:1024]}
    fused, wanted = apply(resnet20, "clean", "fuse"), outputs(resnet20, others)[0]
    context = passes.Context(
        Arithmetic("u8"), lambda: ({"images": images[i : i + 32]} for i in range(0, 256, 32))
    )

    def measure(**options):
        model = apply(fused, ("int8", options), context=context)
        return float(np.sqrt(np.mean(np.square(outputs(model, others)[0] - wanted))))

    return measure


def test_corrected_biases_bring_a_residual_network_nearer_to_float(error):
    assert error(weight_bits=4) < 0.85 * error(weight_bits=4, bias_correction=False)
    assert error() < 1.02 * error(bias_correction=False)
