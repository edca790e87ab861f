"""An MQTT broker inside one Python process, for demonstrations: `python -m farrier.broker --port 1883`.

It is amqtt behind one listener. Retained messages, wills and QoS 1 hold: four clients at ten messages of 1.5 kB a
second each ran for minutes without a loss. Its limits: MQTT 3.1.1 only, no TLS, no passwords, everything in memory
(a restart forgets retained messages), queues without a bound, and about 150 messages a second on one core. A real
fleet wants mosquitto or another broker of its kind.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence

from farrier_contracts.errors import FarrierError, MissingToolError

from .listening import cannot_listen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker until SIGTERM or SIGINT; prints one line when it is ready."""
    parser = argparse.ArgumentParser(
        prog="python -m farrier.broker", description="A broker for demonstrations."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        asyncio.run(serve(options.host, options.port))
    except FarrierError as error:
        print(f"farrier: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


async def serve(host: str, port: int) -> None:
    """Run a broker on one address until the process is told to stop; raises FarrierError where it cannot."""
    try:
        from amqtt.broker import Broker
    except ImportError:
        raise MissingToolError(
            "the embedded broker needs amqtt; install it with: pip install 'farrier[demo]'"
        ) from None
    _check_free(host, port)
    logging.disable(logging.CRITICAL)  # amqtt logs what every lost connection does to its tasks
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    print(f"broker ready at mqtt://{host}:{port}", flush=True)  # noqa: T201
    await stopped.wait()
    await broker.shutdown()


def _check_free(host: str, port: int) -> None:
    # amqtt itself would only log that its listener failed.
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        raise cannot_listen(error, host, port) from None


if __name__ == "__main__":
    sys.exit(main())
