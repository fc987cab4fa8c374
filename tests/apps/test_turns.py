"""Who computes next: one at a time, in order, and what takes long lets others go first."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from peakzoom.apps.serve.turns import Turns


def line_up(turns: Turns, waiting: int) -> None:
    """Wait until so many stand in line, the one whose turn it is included."""
    limit = time.monotonic() + 30
    while len(turns._line) < waiting and time.monotonic() < limit:
        time.sleep(0.001)
    assert len(turns._line) == waiting


def test_one_at_a_time_in_the_order_in_which_they_came() -> None:
    turns, order, inside = Turns(), list[int](), list[int]()

    def work(number: int) -> None:
        with turns.taken():
            inside.append(number)
            order.append(number)
            assert inside == [number]
            inside.remove(number)

    with ThreadPoolExecutor(20) as pool:
        with turns.taken():
            done = []
            for number in range(20):
                done.append(pool.submit(work, number))
                line_up(turns, number + 2)
            assert order == []
        for each in done:
            each.result(30)
    assert order == list(range(20))


def test_what_takes_long_lets_all_who_wait_go_first() -> None:
    turns, order = Turns(), list[str]()

    def work(name: str) -> None:
        with turns.taken():
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with turns.taken():
            turns.pass_on()  # nobody waits
            done = [pool.submit(work, "first")]
            line_up(turns, 2)
            done.append(pool.submit(work, "second"))
            line_up(turns, 3)
            order.append("long")
            turns.pass_on()
            order.append("long, at its end")
        for each in done:
            each.result(30)
    assert order == ["long", "first", "second", "long, at its end"]


def test_two_that_take_long_share() -> None:
    turns, order, begun = Turns(), list[str](), threading.Barrier(2)

    def work(name: str) -> None:
        begun.wait(30)
        with turns.taken():
            line_up(turns, 2)
            for _ in range(3):
                order.append(name)
                turns.pass_on()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(work, name) for name in "ab"]:
            each.result(30)
    first, second = order[:2]
    assert first != second and order == [first, second] * 3


def test_a_turn_ends_by_an_error_too() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.taken():
        raise ZeroDivisionError
    with turns.taken():
        pass
