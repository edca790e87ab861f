"""Training on the ONNX graph: the graph as a torch module, its way back, and training loops.

Everything here needs PyTorch; importing it without raises MissingToolError.
"""

from __future__ import annotations

from farrier_contracts.errors import MissingToolError

try:
    import torch as _torch
except ImportError:
    raise MissingToolError("training needs PyTorch; run: pip install 'farrier[torch]'") from None

del _torch
