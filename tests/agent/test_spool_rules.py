from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farrier_agent.spool import rules

ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=8
)


def numbers(pairs: object) -> set[int]:
    return {n for first, last in pairs for n in range(first, last + 1)}  # type: ignore[attr-defined]


@given(ranges)
def test_merged_keeps_the_numbers_and_leaves_room_between(pairs: list) -> None:
    result = rules.merged(pairs)
    assert numbers(result) == numbers(pairs)
    assert all(result[i - 1][1] + 1 < result[i][0] for i in range(1, len(result)))


@given(ranges, st.integers(0, 40), st.integers(0, 80))
def test_gaps_are_the_complement(held: list, start: int, end: int) -> None:
    assert numbers(rules.gaps(held, start=start, end=end)) == set(range(start, end)) - numbers(held)


def test_the_least_valuable_and_oldest_goes_first() -> None:
    new = rules.Candidate(age=2, stream="system", first=0, size=1)
    old = rules.Candidate(age=1, stream="system", first=9, size=1)
    dear = rules.Candidate(age=1, stream="inference", first=0, size=1)
    unknown = rules.Candidate(age=3, stream="else", first=0, size=1)
    assert rules.victim([dear, new, old]) == old
    assert rules.victim([dear, new, old, unknown]) == unknown
    assert rules.victim([dear]) == dear
    assert rules.victim([]) is None
