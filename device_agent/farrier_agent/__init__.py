"""The Farrier agent: loads bundles, serves inference and reports telemetry."""
