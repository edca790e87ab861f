"""The agent on a device, and what collects its telemetry: time, memory, points a second."""
