from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diarist.api.fair_semaphore import FairSemaphore


def test_waiters_get_a_slot_in_the_order_of_arrival() -> None:
    semaphore = FairSemaphore[str](2)
    assert [semaphore.acquire(waiter) for waiter in "abcd"] == [True, True, False, False]
    assert semaphore.release() == "c"
    assert not semaphore.acquire("e"), "the slot was granted to c"
    assert semaphore.acquire("c")
    assert [semaphore.release(), semaphore.release()] == ["d", "e"]
    assert semaphore.acquire("d")
    assert semaphore.acquire("e")
    assert [semaphore.release(), semaphore.release()] == [None, None]
    assert semaphore.acquire("a")


@given(slots=st.integers(1, 4), steps=st.lists(st.booleans(), max_size=60))
def test_slots_are_never_exceeded_and_no_waiter_is_forgotten(slots: int, steps: list[bool]) -> None:
    semaphore = FairSemaphore[int](slots)
    holders: set[int] = set()
    waiting: list[int] = []

    def release() -> None:
        holders.remove(min(holders))
        next_waiter = semaphore.release()
        assert next_waiter == (waiting[0] if waiting else None)
        if next_waiter is not None:
            waiting.pop(0)
            assert semaphore.acquire(next_waiter)
            holders.add(next_waiter)

    for number, arrives in enumerate(steps):
        if arrives:
            if semaphore.acquire(number):
                holders.add(number)
            else:
                waiting.append(number)
        elif holders:
            release()
        assert len(holders) == min(slots, len(holders) + len(waiting))
    while holders:
        release()
    assert not waiting
