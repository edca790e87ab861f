"""The embedded broker as paho clients see it, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from farrier.broker import main
from farrier.collector import connect, new_client, parse_broker

SUBSCRIBE_LIMIT_S = 20


def listen(url: str, topic: str, name: str = "listener"):
    got: list[tuple[str, bytes, bool]] = []
    broker = parse_broker(url)
    client = new_client(broker, name)
    client.on_message = lambda client, userdata, message: got.append(
        (message.topic, message.payload, message.retain)
    )
    subscribed = threading.Event()
    client.on_connect = lambda client, *_: client.subscribe(topic, 1)
    client.on_subscribe = lambda *_: subscribed.set()
    connect(client, broker)
    client.loop_start()
    assert subscribed.wait(SUBSCRIBE_LIMIT_S)
    return client, got


def test_retained_wills_and_qos_1_arrive(broker, eventually):
    listener, got = listen(broker, "a/#")
    address = parse_broker(broker)
    device = new_client(address, "device")
    device.will_set("a/state", b"gone", qos=1, retain=True)
    connect(device, address)
    device.loop_start()
    for number in range(200):
        device.publish("a/t", str(number).encode(), qos=1).wait_for_publish(10)
    eventually(lambda: len(got) == 200, what="200 messages")
    assert [int(payload) for _, payload, _ in got] == list(range(200))
    device._sock.shutdown(2)  # as a device that loses power, and comes back
    eventually(lambda: ("a/state", b"gone", False) in got, what="the will")
    device.loop_stop()
    late, retained = listen(broker, "a/state", "late")
    eventually(lambda: ("a/state", b"gone", True) in retained, what="the retained will")
    for client in (listener, late):
        client.disconnect()
        client.loop_stop()


def test_a_port_in_use_is_one_sentence(embedded, capsys):
    port = parse_broker(embedded).port
    assert main(["--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert "--port" in said


def test_it_says_when_it_is_ready_and_ends_cleanly(free_port):
    process = subprocess.Popen(
        [sys.executable, "-m", "farrier.broker", "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
