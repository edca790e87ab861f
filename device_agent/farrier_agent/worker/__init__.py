"""The worker: one process that serves one deployment, started and led by the supervisor.

    python -m farrier_agent.worker --store S --digest D --name NAME --listen-fd 3,4 --control-fd 5 --stats PATH

It speaks newline-delimited JSON on the control socket. From the worker:

    {"event": "building", "within_s": 1800}            it builds an engine first, which may take so long
    {"event": "ready", "load_ms": 81.2, "golden": 8}   loaded, checked and warm; not yet accepting
    {"event": "failed", "reason": "..."}               one sentence; exit code 2 follows
    {"event": "serving"}
    {"event": "drained"}                               exit code 0 follows

To the worker: {"do": "serve"} and {"do": "drain", "within_s": 30}. The end of the socket, or SIGTERM, is a short
drain: a worker never outlives its supervisor.
"""
