"""The fleet store: points stored once, accounts that balance, series that sum up to the points."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farrier import store as stores
from farrier.store import migrations, writing
from farrier_contracts.errors import InputError, UsageError
from farrier_contracts.wire.documents import Desired, State, WantedDeployment
from farrier_contracts.wire.telemetry import Batch, Clock, Point, Statement

SECOND = 10**9


@pytest.fixture
def store(tmp_path):
    with stores.open_store(f"sqlite:///{tmp_path}/fleet.db") as opened:
        yield opened


def batch(first: int, count: int, *, low: int = 0, boot: str = "b1") -> Batch:
    points = tuple(
        Point(seq, seq * SECOND, {"m.a": seq, "m.b": seq / 2}) for seq in range(first, first + count)
    )
    return Batch(boot, low, Clock(0, 0), points)


def add(store, device: str, piece: Batch) -> int:
    with store.transaction():
        row = writing.device_id(store, "demo", device)
        stream = writing.stream_id(store, row, piece.boot, "inference")
        return writing.add_batch(store, stream, piece, wall_offset_ns=0)[1]


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///", "mysql://x/y", "fleet.db", "postgresql://h/d"]
)
def test_a_url_that_is_not_understood_is_one_sentence(url):
    with pytest.raises(UsageError, match=r"sqlite:///name\.db"):
        stores.open_store(url)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(InputError, match="not a usable fleet store"):
        stores.open_store("sqlite:///x.db", base=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        stores.open_store("sqlite:///no/x.db", base=tmp_path)
    with pytest.raises(InputError, match="farrier collect"):
        stores.open_store("sqlite:///missing.db", base=tmp_path, create=False)
    assert not (tmp_path / "missing.db").exists()


def test_migrations_are_recorded_and_applied_once(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/fleet.db"
    with stores.open_store(url) as first:
        identity = first.identity
    later = (2, ("ALTER TABLE devices ADD COLUMN note TEXT",))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, later))
    for _ in range(2):
        with stores.open_store(url) as again:
            assert migrations.applied(again.connection) == 2
            assert again.identity == identity


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/fleet.db"
    stores.open_store(url).close()
    broken = (2, ("CREATE TABLE half (x)", "CREATE NONSENSE"))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
        with pytest.raises(InputError, match="NONSENSE"):
            stores.open_store(url)
    with stores.open_store(url) as again:
        assert migrations.applied(again.connection) == 1
        names = [row[0] for row in again.connection.execute("SELECT name FROM sqlite_master")]
    assert "half" not in names


def test_an_acknowledged_commit_is_flushed_to_the_disk(store):
    (level,) = store.connection.execute("PRAGMA synchronous").fetchone()
    (mode,) = store.connection.execute("PRAGMA journal_mode").fetchone()
    assert (level, mode) == (2, "wal")


def test_duplicates_are_counted_and_gaps_hold_the_acknowledgement_back(store):
    assert add(store, "a", batch(0, 3)) == 2
    assert add(store, "a", batch(1, 3)) == 3
    assert add(store, "a", batch(8, 2)) == 3  # 4 to 7 are missing
    assert add(store, "a", batch(4, 4)) == 9  # and with them, what was stored beyond them counts
    (account,) = stores.balance(store, stores.device(store, "a").id)
    assert (account.received, account.duplicates, account.acknowledged) == (10, 2, 9)
    assert add(store, "a", batch(20, 1, low=20)) == 20  # the device says that it holds nothing older


batches = st.tuples(st.integers(0, 30), st.integers(1, 8))


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(batches, max_size=12),
    dropped=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=4),
)
def test_accounts_hold_for_any_order_of_arrival(tmp_path_factory, pieces, dropped):
    ranges = [(first, first + more) for first, more in dropped]
    stored = {seq for first, count in pieces for seq in range(first, first + count)}
    lost = {seq for first, last in ranges for seq in range(first, last + 1)}
    produced = max(stored | lost, default=-1) + 1
    with stores.open_store("sqlite:///x.db", base=tmp_path_factory.mktemp("store")) as store:
        reached = [add(store, "a", batch(first, count)) for first, count in pieces]
        with store.transaction():
            row = writing.device_id(store, "demo", "a")
            writing.set_statement(store, row, Statement("b1", "inference", produced, tuple(ranges)))
        (account,) = stores.balance(store, row)
    contiguous = next(seq for seq in range(100) if seq not in stored) - 1
    assert reached == sorted(reached)
    assert (reached or [-1])[-1] == contiguous
    assert account.received == len(stored)
    assert account.duplicates == sum(count for _, count in pieces) - len(stored)
    assert account.ledgered == len(lost - stored)
    assert account.settled == (len(stored | lost) == produced)
    assert account.missing == produced - len(stored | lost)


def test_a_device_that_is_ahead_of_its_statement_hides_no_gap(store):
    add(store, "a", batch(0, 10))
    add(store, "a", batch(12, 20))
    row = stores.device(store, "a").id
    with store.transaction():
        writing.set_statement(store, row, Statement("b1", "inference", 15))
    (account,) = stores.balance(store, row)
    assert (account.produced, account.received, account.missing, account.settled) == (32, 30, 2, False)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])))
)
def test_merged_ranges_cover_the_same_numbers_once(ranges):
    merged = writing.merged(ranges)
    covered = [seq for first, last in merged for seq in range(first, last + 1)]
    assert covered == sorted({seq for first, last in ranges for seq in range(first, last + 1)})


def test_an_older_statement_does_not_replace_a_newer_one(store):
    add(store, "a", batch(0, 3))
    row = stores.device(store, "a").id
    for produced in (3, 5, 4):
        with store.transaction():
            writing.set_statement(store, row, Statement("b1", "inference", produced))
    assert stores.balance(store, row)[0].produced == 5
    assert stores.totals(store).unsettled == 1


def test_the_old_will_of_an_ended_session_is_ignored(store):
    with store.transaction():
        row = writing.device_id(store, "demo", "a")
        told = [
            writing.set_state(store, row, State(online, session, "b"))
            for online, session in [(True, 1), (True, 2), (False, 1), (False, 2), (False, 1), (True, 3)]
        ]
    assert told == [True, True, False, True, True, True]
    assert stores.device(store, "a").online


def test_a_series_adds_up_to_the_points(store):
    add(store, "a", batch(0, 100))
    row = stores.device(store, "a").id
    found = stores.series(
        store, row, ["m.a", "m.b", "none"], since_ns=10 * SECOND, until_ns=60 * SECOND, buckets=7
    )
    assert found["none"] == []
    assert len(found["m.a"]) == 7
    assert sum(slice.count for slice in found["m.a"]) == 50
    assert sum(slice.total for slice in found["m.a"]) == sum(range(10, 60))
    assert sum(slice.total for slice in found["m.b"]) == sum(range(10, 60)) / 2
    assert (found["m.a"][0].low, found["m.a"][-1].high) == (10, 59)
    assert found["m.a"][0].start_ns == 10 * SECOND
    assert stores.latest(store, row)["inference"].values == {"m.a": 99, "m.b": 49.5}
    with pytest.raises(UsageError):
        stores.series(store, row, ["m.a"], since_ns=0, until_ns=SECOND, buckets=0)


def test_devices_of_several_fleets_are_told_apart(store):
    with store.transaction():
        for fleet, name in [("one", "a"), ("two", "a"), ("two", "b")]:
            writing.device_id(store, fleet, name)
    assert [(each.fleet, each.name) for each in stores.devices(store)] == [
        ("one", "a"),
        ("two", "a"),
        ("two", "b"),
    ]
    assert len(stores.devices(store, fleet="two")) == 2
    assert stores.device(store, "a", fleet="two").fleet == "two"
    with pytest.raises(InputError, match="several fleets"):
        stores.device(store, "a")
    with pytest.raises(InputError, match="no device 'c'"):
        stores.device(store, "c")


def test_desired_states_are_kept_in_order(store):
    with store.transaction():
        row = writing.device_id(store, "demo", "a")
        for version in (1, 2):
            wanted = WantedDeployment("digits", "digits", f"{version}.0.0")
            writing.set_desired(store, row, Desired(version, (wanted,)))
    assert stores.current_desired(store, row).deployments[0].version == "2.0.0"
    assert stores.desired_before(store, row).deployments[0].version == "1.0.0"
    assert stores.device(store, "a").desired.version == 2
    with pytest.raises(sqlite3.IntegrityError), store.transaction():
        writing.set_desired(store, row, Desired(2))


def test_nothing_of_a_failed_transaction_stays(store):
    with pytest.raises(sqlite3.OperationalError), store.transaction():
        store.connection.execute(
            "SELECT nothing AS x" if writing.device_id(store, "demo", "a") else "SELECT 1"
        )
    assert stores.devices(store) == []
