"""Draining one server while another takes over its socket: every connection is answered by one of the two."""

from __future__ import annotations

import asyncio
import http.client
import socket

import pytest

from farrier_agent.oip.http import Response
from farrier_agent.oip.server import Server

CLIENTS = 12


@pytest.mark.parametrize("turns", range(8))
def test_no_connection_falls_between_two_servers(turns):
    """The first one drains `turns` turns of the loop after clients have connected: no turn may lose any."""

    async def scenario(listening: socket.socket) -> list[int]:
        loop = asyncio.get_running_loop()
        first, second = (Server(lambda _request, respond: respond(Response(200))) for _ in range(2))
        first.listen([listening.dup()])
        clients = [http.client.HTTPConnection(*listening.getsockname(), timeout=20) for _ in range(CLIENTS)]
        for client in clients:
            client.connect()  # the kernel completes it; no server has had its turn yet
        for _ in range(turns):
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(first.drain(20))
        await asyncio.sleep(0)
        second.listen([listening.dup()])
        try:
            return [await loop.run_in_executor(None, ask, client) for client in clients]
        finally:
            for client in clients:
                client.close()
            await draining
            await second.drain(1)

    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listening:
        assert asyncio.run(scenario(listening)) == [200] * CLIENTS


def ask(client: http.client.HTTPConnection) -> int:
    client.request("GET", "/v2/health/live")
    response = client.getresponse()
    response.read()
    return response.status
