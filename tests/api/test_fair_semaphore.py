from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diarist.api.fair_semaphore import FairSemaphore


def test_those_who_find_no_place_are_called_in_order() -> None:
    lane = FairSemaphore[str](2)
    assert [lane.enter(who) for who in "abcd"] == [True, True, False, False]
    assert lane.leave() == "c"
    assert not lane.enter("e"), "the place is c's, who was called"
    assert lane.enter("c")
    assert [lane.leave(), lane.leave()] == ["d", "e"]
    assert lane.enter("d")
    assert lane.enter("e")
    assert [lane.leave(), lane.leave()] == [None, None]
    assert lane.enter("a")


@given(worker_slots=st.integers(1, 4), steps=st.lists(st.booleans(), max_size=60))
def test_never_more_than_there_are_places_and_nobody_is_forgotten(worker_slots: int, steps: list[bool]) -> None:
    lane = FairSemaphore[int](worker_slots)
    inside: set[int] = set()
    waiting: list[int] = []

    def leave() -> None:
        inside.remove(min(inside))
        following = lane.leave()
        assert following == (waiting[0] if waiting else None)
        if following is not None:
            waiting.pop(0)
            assert lane.enter(following)
            inside.add(following)

    for number, comes in enumerate(steps):
        if comes:
            if lane.enter(number):
                inside.add(number)
            else:
                waiting.append(number)
        elif inside:
            leave()
        assert len(inside) == min(worker_slots, len(inside) + len(waiting))
    while inside:
        leave()
    assert not waiting
