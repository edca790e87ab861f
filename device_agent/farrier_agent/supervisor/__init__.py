"""The control plane: one process that owns sockets, workers, updates and telemetry, and loads no engine.

It imports neither numpy nor an engine nor the update client: those live in child processes.
"""
