"""What host and device agree on: bundles, targets, topics and telemetry. Standard library only."""

import os

__version__ = "0.1.0"

# Some builds of ONNX Runtime send usage data to their maker, from the import on. What a user's models do is the
# user's own: every process of ours, and each of its children, imports this package first. Say 0 to allow it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
