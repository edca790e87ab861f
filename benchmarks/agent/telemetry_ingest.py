"""Telemetry into the fleet's store: points per second through `farrier collect`, against the usual consumer.

The usual consumer subscribes with paho, decodes one JSON message per point and commits each one to SQLite, which is
what makes it durable. Both read the same points of the same devices from the same mosquitto, in turns, each as a
process of its own; the publisher writes prepared packets, so that it is never what is measured. Told apart are the
agent's own batches and, for the collector too, one point per message.

    python -m benchmarks.agent.telemetry_ingest [--rounds 3] [--goal 10]
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import cbor2

from farrier_contracts.wire.payload import seal
from farrier_contracts.wire.telemetry import Batch, Clock, Point, to_document

from ..figure import emit

DEVICES = 20
BATCH_POINTS = 50
COLUMNS = 10
START_LIMIT_S = 30
RUN_LIMIT_S = 120
POLL_S = 0.02
NAIVE_TOPIC = "naive/#"
BROKER_LOG = "mosquitto.log"


def naive(port: int, path: str) -> None:
    """The usual consumer."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    database = sqlite3.connect(path, check_same_thread=False)
    names = [f"c{index}" for index in range(COLUMNS)]
    database.execute(f"CREATE TABLE points (device TEXT, seq INTEGER, ts INTEGER, {', '.join(names)})")
    insert = f"INSERT INTO points VALUES ({', '.join('?' * (3 + COLUMNS))})"

    def on_message(client, userdata, message):
        point = json.loads(message.payload)
        database.execute(
            insert, (point["device"], point["seq"], point["ts"], *(point[name] for name in names))
        )
        database.commit()

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe(NAIVE_TOPIC, 0)
    client.loop_forever()


def point(seq: int) -> Point:
    return Point(
        seq, (seq + 1) * 10**9, {f"c{index}": round(20 + index + seq % 97 / 7, 3) for index in range(COLUMNS)}
    )


def json_packets(count: int) -> list[bytes]:
    """One point per message, as JSON."""
    packets = []
    for number in range(count):
        device, one = f"device-{number % DEVICES}", point(number // DEVICES)
        body = {"device": device, "seq": one.seq, "ts": one.mono_ns, **one.values}
        packets.append(packet(f"naive/{device}", json.dumps(body).encode()))
    return packets


def batch_packets(count: int, size: int, boot: str) -> list[bytes]:
    """The wire's own batches of `size` points."""
    packets = []
    for number in range(count // size):
        device, first = f"device-{number % DEVICES}", number // DEVICES * size
        points = tuple(point(first + index) for index in range(size))
        piece = Batch(boot, 0, Clock(points[-1].mono_ns, time.time_ns()), points)
        packets.append(
            packet(f"farrier/v1/bench/{device}/t/inference", seal(cbor2.dumps(to_document(piece))))
        )
    return packets


def packet(topic: str, payload: bytes) -> bytes:
    """An MQTT 3.1.1 PUBLISH with QoS 0."""
    body = struct.pack("!H", len(topic)) + topic.encode() + payload
    length, size = b"", len(body)
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (128 if size else 0)])
        if not size:
            return b"\x30" + length + body


def publish(port: int, packets: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=RUN_LIMIT_S) as link:
        link.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        if link.recv(4) != b"\x20\x02\x00\x00":
            raise SystemExit("the broker refused the publisher")
        link.sendall(b"".join(packets))
        link.sendall(b"\xe0\x00")
        while link.recv(1024):  # until the broker has read everything
            pass


def wait(reached: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {limit_s:g} s")
        time.sleep(POLL_S)


def says(log: Path, words: str, since: int) -> bool:
    """Whether a log holds words after its first `since` bytes."""
    return words.encode() in log.read_bytes()[since:]


def stored(path: Path, query: str) -> int:
    if not path.exists():
        return -1
    with closing(sqlite3.connect(path, timeout=10)) as database:
        try:
            return database.execute(query).fetchone()[0] or 0
        except sqlite3.OperationalError:
            return -1  # the tables are not made yet


@contextmanager
def running(*command: str, log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_LIMIT_S)


def consume(folder: Path, port: int, *, packets: list[bytes], points: int, collector: bool) -> float:
    """Return points per second from the first byte sent to the last point committed."""
    path = folder / "x.db"
    for old in folder.glob("x.db*"):
        old.unlink()
    log = folder / "consumer.log"
    log.write_bytes(b"")
    if collector:
        options = [
            "collect",
            "--broker",
            f"mqtt://127.0.0.1:{port}",
            "--store",
            f"sqlite:///{path}",
            "--fleet",
            "bench",
        ]
        command = [sys.executable, "-m", "farrier", *options]
        query = "SELECT sum(received) FROM streams"
    else:
        module = "benchmarks.agent.telemetry_ingest"
        command = [sys.executable, "-m", module, "--naive", str(port), str(path)]
        query = "SELECT max(rowid) FROM points"
    broker_log, topic = folder / BROKER_LOG, "farrier/v1/bench/+/t/+" if collector else NAIVE_TOPIC
    told = broker_log.stat().st_size
    with running(*command, log=log):
        subscribed = partial(says, broker_log, topic, told)
        wait(subscribed, START_LIMIT_S, f"subscribing to {topic}")
        started = time.perf_counter()
        publish(port, packets)
        wait(lambda: stored(path, query) >= points, RUN_LIMIT_S, "storing the points")
        return points / (time.perf_counter() - started)


def measure(rounds: int, port: int, folder: Path) -> dict[str, float]:
    counts = {"batches": 50_000, "single": 5_000, "naive": 1_500}
    rates: dict[str, list[float]] = {name: [] for name in counts}
    for number in range(rounds):
        prepared = {
            "batches": batch_packets(counts["batches"], BATCH_POINTS, f"boot-{number}"),
            "single": batch_packets(counts["single"], 1, f"boot-{number}"),
            "naive": json_packets(counts["naive"]),
        }
        for name, packets in prepared.items():
            rate = consume(folder, port, packets=packets, points=counts[name], collector=name != "naive")
            rates[name].append(rate)
            messages = rate * len(packets) / counts[name]
            print(f"round {number + 1}: {name:8} {rate:10,.0f} points/s, {messages:8,.0f} messages/s")
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=10.0)
    parser.add_argument("--naive", nargs=2, metavar=("PORT", "DB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.naive:
        naive(int(options.naive[0]), options.naive[1])
        return
    broker = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if broker is None:
        raise SystemExit("this benchmark needs mosquitto; install it with: apt install mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n"
            "log_dest stderr\nlog_type error\nlog_type subscribe\n"
        )
        with running(broker, "-c", str(config), log=folder / BROKER_LOG):
            wait(lambda: listens(port), START_LIMIT_S, "starting mosquitto")
            rates = measure(options.rounds, port, folder)
    print(f"message for message (one point each): {rates['single'] / rates['naive']:.1f} x")
    emit("telemetry_ingest", rates["batches"] / rates["naive"], goal=options.goal, unit="x")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
