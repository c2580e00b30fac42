from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diarist.api.fair_semaphore import FairSemaphore


def test_those_who_find_no_place_are_called_in_order() -> None:
    semaphore = FairSemaphore[str](2)
    assert [semaphore.acquire(waiter) for waiter in "abcd"] == [True, True, False, False]
    assert semaphore.release() == "c"
    assert not semaphore.acquire("e"), "the place is c's, who was called"
    assert semaphore.acquire("c")
    assert [semaphore.release(), semaphore.release()] == ["d", "e"]
    assert semaphore.acquire("d")
    assert semaphore.acquire("e")
    assert [semaphore.release(), semaphore.release()] == [None, None]
    assert semaphore.acquire("a")


@given(slots=st.integers(1, 4), steps=st.lists(st.booleans(), max_size=60))
def test_never_more_than_there_are_places_and_nobody_is_forgotten(slots: int, steps: list[bool]) -> None:
    semaphore = FairSemaphore[int](slots)
    inside: set[int] = set()
    waiting: list[int] = []

    def release() -> None:
        inside.remove(min(inside))
        next_waiter = semaphore.release()
        assert next_waiter == (waiting[0] if waiting else None)
        if next_waiter is not None:
            waiting.pop(0)
            assert semaphore.acquire(next_waiter)
            inside.add(next_waiter)

    for number, comes in enumerate(steps):
        if comes:
            if semaphore.acquire(number):
                inside.add(number)
            else:
                waiting.append(number)
        elif inside:
            release()
        assert len(inside) == min(slots, len(inside) + len(waiting))
    while inside:
        release()
    assert not waiting
