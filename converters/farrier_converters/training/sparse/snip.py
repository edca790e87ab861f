"""Connection sensitivity: how much the loss would change, to first order, without a weight.

Source: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", arXiv 1810.02340.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import numpy as np
import torch

from farrier_contracts.errors import InputError

from ...sparsity.layers import Layer
from ..data import Stream
from ..fit import FitSettings
from ..fit.trainer import Trainer
from ..module import OnnxModule
from ..objective import Objective


def snip(
    module: OnnxModule,
    layers: Mapping[str, Layer],
    data: Stream,
    objective: Objective,
    *,
    batches: int = 8,
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Return |w * dL/dw| [outputs, inputs, kernel] of each layer, the gradient summed over the first batches.

    Batch norms use their stored statistics. Raises InputError where there are no batches, they do not
    fit, or the loss is no number.
    """
    trainer = Trainer(module, FitSettings(device=device), objective, ())
    module.eval()
    module.zero_grad()
    count = 0
    for inputs, labels in islice(iter(data(0)), batches):
        trainer.value(inputs, labels)[0].backward()
        count += 1
    if not count:
        raise InputError("the training data holds no batches")
    found = {}
    for name, parameter in module.parameters_by_name.items():
        if name in layers and parameter.grad is not None:
            sensitivity = (parameter.detach() * parameter.grad).abs()
            if not bool(torch.isfinite(sensitivity).all()):
                raise InputError(
                    "the loss of the training data is not a number; look at its labels and values"
                )
            found[name] = layers[name].view.cube(sensitivity.cpu().numpy()).astype(np.float32)
    module.zero_grad()
    return found
