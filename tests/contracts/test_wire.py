"""Topics, payloads, documents and telemetry: what is written is read back, what is hostile is refused."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_contracts.errors import InputError
from farrier_contracts.wire import documents, payload, telemetry, topics

ids = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", fullmatch=True)
seqs = st.integers(0, 1 << 40)
names = st.text(min_size=1, max_size=20)
short = st.text(max_size=30)
values = st.integers(-(1 << 62), 1 << 62) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=10,
)

LEVELS = ["farrier", "v1", "a", "t", "cmd", "+", "#", "", "A", "$SYS", "é", "state", "a\n"]
bodies = st.binary(max_size=4000).map(lambda tail: b"\xa1" + tail) | st.text(max_size=2000).map(
    lambda tail: b"{" + tail.encode()
)


@st.composite
def topic_values(draw: Any) -> topics.Topic:
    kind = draw(st.sampled_from(sorted(topics.RETAINED)))
    levels = {"cmd": 2}.get(kind, 1 if kind in topics.WITH_DETAIL else 0)
    return topics.Topic(draw(ids), draw(ids), kind, "/".join(draw(ids) for _ in range(levels)))


@st.composite
def batches(draw: Any) -> telemetry.Batch:
    first = draw(seqs)
    times = sorted(draw(st.lists(st.integers(0, 1 << 60), min_size=1, max_size=8)))
    rows = [draw(st.dictionaries(names, values, max_size=3)) for _ in times]
    points = [telemetry.Point(first + i, time, row) for i, (time, row) in enumerate(zip(times, rows))]
    clock = draw(
        st.builds(telemetry.Clock, st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.integers(0, 1 << 40))
    )
    return telemetry.Batch(draw(names), draw(st.integers(0, first)), clock, tuple(points))


ranges = st.tuples(seqs, seqs).map(lambda pair: (min(pair), max(pair)))
statements = st.builds(telemetry.Statement, names, names, seqs, st.lists(ranges, max_size=4).map(tuple))
wanted = st.builds(documents.WantedDeployment, ids, ids, short, st.integers(0, 65535))
running = st.builds(documents.RunningDeployment, short, short, short, short, short, short, short)


@given(topic_values())
def test_a_topic_is_read_back(topic: topics.Topic) -> None:
    assert topics.parse(str(topic)) == topic
    assert topic.retained is topics.RETAINED[topic.kind]


@given(st.text(max_size=60) | st.lists(st.sampled_from(LEVELS), max_size=9).map("/".join))
def test_a_hostile_topic_is_none_or_exactly_ours(text: str) -> None:
    topic = topics.parse(text)
    assert topic is None or str(topic) == text


@pytest.mark.parametrize(
    "text",
    [
        "farrier/v1/f/+/state",
        "farrier/v1/f/d/#",
        "farrier/v1/F/d/state",
        "farrier/v1/f/d/state/more",
        "farrier/v1/f/d/t",
        "farrier/v1/f/d/t/a/b",
        "farrier/v1/f/d/cmd/only-type/",
        "farrier/v2/f/d/state",
        "/farrier/v1/f/d/state",
        "farrier/v1/f/d/state\0",
        "farrier/v1/f/" + "d" * 65 + "/state",
        "farrier/v1/f/-d/state",
        "farrier/v1/f/d/unknown",
    ],
)
def test_topics_that_are_not_ours(text: str) -> None:
    assert topics.parse(text) is None


@given(topic_values())
def test_subscriptions_cover_their_topics(topic: topics.Topic) -> None:
    pattern = topics.subscription(topic.fleet, topic.kind).split("/")
    levels = str(topic).split("/")
    assert len(pattern) == len(levels)
    assert all(want in ("+", have) for want, have in zip(pattern, levels))


@given(bodies)
def test_a_payload_is_opened_again(body: bytes) -> None:
    sealed = payload.seal(body)
    assert payload.unseal(sealed) == body
    assert len(sealed) <= max(len(body), payload.COMPRESS_ABOVE_BYTES + 100) + 20


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"\x78\x9c" + tail))
def test_a_hostile_payload_is_opened_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        assert len(payload.unseal(data)) <= payload.BODY_MAX_BYTES


def test_every_truncation_of_a_compressed_payload_is_refused() -> None:
    sealed = payload.seal(bytes(range(256)) * 20)
    for length in range(len(sealed)):
        with pytest.raises(InputError):
            payload.unseal(sealed[:length])
    with pytest.raises(InputError):
        payload.unseal(sealed + b"\0")


def test_the_limits_of_payloads_meet() -> None:
    largest = b"\xa0" * payload.BODY_MAX_BYTES
    assert payload.unseal(payload.seal(largest)) == largest
    with pytest.raises(InputError, match="above the limit"):
        payload.seal(largest + b"\xa0")
    bomb = zlib.compress(b"\0" * (payload.PAYLOAD_MAX_BYTES * 900))
    assert len(bomb) <= payload.PAYLOAD_MAX_BYTES
    with pytest.raises(InputError, match="too large when inflated"):
        payload.unseal(bomb)
    with pytest.raises(InputError, match="above the limit"):
        payload.unseal(b"\xa0" * (payload.PAYLOAD_MAX_BYTES + 1))


@given(batches())
def test_a_telemetry_batch_is_read_back(batch: telemetry.Batch) -> None:
    assert telemetry.from_document(telemetry.to_document(batch)) == batch


@given(batches(), st.data())
def test_an_altered_batch_is_refused_or_still_within_bounds(
    batch: telemetry.Batch, data: st.DataObject
) -> None:
    document = telemetry.to_document(batch)
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(anything)
    try:
        read = telemetry.from_document(document)
    except InputError:
        return
    assert read.low <= read.first <= read.last < telemetry.SEQ_LIMIT
    assert all(0 <= point.mono_ns < telemetry.INT_LIMIT for point in read.points)
    assert abs(read.clock.wall_ns) < telemetry.INT_LIMIT


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.integers(0, 30)), max_size=30))
def test_an_unseen_point_is_never_acknowledged(arrivals: list[tuple[int, int, int]]) -> None:
    """Batches in any order, with gaps and repetitions: all up to the acknowledged number was stored or given up."""
    stored: set[int] = set()
    acknowledged, given_up = -1, 0
    for first, length, held in arrivals:
        low = min(held, first)
        before, last = acknowledged, first + length - 1
        stored |= set(range(first, last + 1))
        given_up = max(given_up, low)
        acknowledged = telemetry.advance(acknowledged, first, last, low)
        assert acknowledged >= before
        assert all(seq in stored or seq < given_up for seq in range(acknowledged + 1))


@given(st.integers(0, 40), st.integers(1, 10))
def test_batches_in_order_are_all_acknowledged(count: int, size: int) -> None:
    acknowledged = -1
    for number in range(count):
        acknowledged = telemetry.advance(acknowledged, number * size, (number + 1) * size - 1, 0)
    assert acknowledged == count * size - 1


@given(statements)
def test_a_statement_is_read_back(statement: telemetry.Statement) -> None:
    assert telemetry.Statement.from_document(statement.to_document()) == statement


reported = st.builds(
    documents.Reported,
    seqs,
    st.lists(running, max_size=4).map(tuple),
    st.lists(statements, max_size=3).map(tuple),
    st.dictionaries(short, values, max_size=3),
)
deployments = st.lists(wanted, max_size=4, unique_by=lambda deployment: deployment.name).map(tuple)
desired = st.builds(documents.Desired, seqs, deployments)


@given(desired | reported | st.builds(documents.State, st.booleans(), seqs, short))
def test_a_document_is_read_back(document: Any) -> None:
    assert type(document).from_document(document.to_document()) == document


@given(
    st.sampled_from([documents.Desired, documents.Reported, documents.State, telemetry.Statement]), anything
)
def test_a_hostile_document_is_read_or_refused(kind: Any, document: Any) -> None:
    with contextlib.suppress(InputError):
        kind.from_document(document)


@pytest.mark.parametrize("number", [1 << 63, 10**100, -(1 << 63), True, 1.0, None])
def test_numbers_that_a_database_cannot_hold_are_refused(number: Any) -> None:
    with pytest.raises(InputError):
        documents.State.from_document({"online": True, "session": number, "boot": "b"})
    with pytest.raises(InputError):
        documents.Desired.from_document({"version": number, "deployments": []})
    with pytest.raises(InputError):
        telemetry.from_document(
            {"v": 1, "boot": "b", "seq": 0, "low": 0, "t": [number], "wall": [0, 0, 0], "cols": {}}
        )
