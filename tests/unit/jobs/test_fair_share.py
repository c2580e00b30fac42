"""How owners share slots: nobody can take all, and whoever comes next finds one."""

from __future__ import annotations

import pytest

from diarist.jobs.fair_share import UNSHARED, SharedSlots, has_free_slot


def take_all(slots: SharedSlots, owner: str) -> int:
    taken = 0
    while slots.acquire(owner) is not None:
        taken += 1
    return taken


@pytest.mark.parametrize(("total", "shares"), [(16, (8, 4, 2, 1)), (8, (4, 2, 1)), (2, (1, 1)), (1, (1,))])
def test_each_of_those_who_come_late_still_finds_a_slot(total, shares):
    slots = SharedSlots(total)
    assert tuple(take_all(slots, f"owner-{number}") for number in range(len(shares))) == shares


def test_owners_that_take_turns_get_equal_shares():
    slots = SharedSlots(16)
    held = dict.fromkeys("abc", 0)
    for _ in range(16):
        for owner in held:
            held[owner] += slots.acquire(owner) is not None
    assert held == {"a": 4, "b": 4, "c": 4}
    assert not slots.full


def test_without_others_all_may_be_taken():
    slots = SharedSlots(4)
    assert take_all(slots, UNSHARED) == 4
    assert slots.full
    assert slots.acquire("a") is None


def test_a_slot_is_released_once_however_often_it_is_closed():
    slots = SharedSlots(3)
    slot, other = slots.acquire(UNSHARED), slots.acquire(UNSHARED)
    assert slot is not None
    assert other is not None
    for _ in range(3):
        slot.close()
    assert take_all(slots, UNSHARED) == 2


def test_slots_that_others_hold_count():
    assert has_free_slot(4, {"a": 2}, "b")
    assert not has_free_slot(4, {"a": 2}, "a")
    assert not has_free_slot(4, {"a": 2, UNSHARED: 2}, "b")
