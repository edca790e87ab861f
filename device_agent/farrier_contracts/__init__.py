"""What host and device agree on: bundles, targets, topics and telemetry. Standard library only."""

__version__ = "0.1.0"
