"""Parts of long work side by side: order, and what happens where one of them fails."""

from __future__ import annotations

import threading

import pytest

from farrier.optimization.together import together


def test_results_come_in_the_order_of_the_items_whichever_ends_first():
    second_ended = threading.Event()

    def part(item: int) -> int:
        if item == 0:
            assert second_ended.wait(10)  # seconds: both run at the same time
        else:
            second_ended.set()
        return item * item

    assert together(part, [0, 1, 2]) == [0, 1, 4]
    assert together(part, []) == []


def test_what_one_part_raises_is_raised_and_hardly_another_begins():
    begun: list[int] = []
    failed = threading.Event()

    def part(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise ValueError("the first")
        assert failed.wait(10)  # seconds: the one that a free thread takes up before the failure is seen
        return item

    with pytest.raises(ValueError, match="the first"):
        together(part, range(8), workers=1)
    failed.set()
    assert begun in ([0], [0, 1])
