"""How a document leaves for a topic: CBOR, sealed, QoS 1, retained where the topic is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from farrier_contracts.wire import payload
from farrier_contracts.wire.topics import Topic

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo


def publish(client: Client, topic: Topic, document: Mapping[str, Any]) -> MQTTMessageInfo:
    """Hand one document to the client; returns paho's receipt."""
    import cbor2

    return client.publish(str(topic), payload.seal(cbor2.dumps(dict(document))), qos=1, retain=topic.retained)
