"""Time as a ratio within one run, which is the same on any machine that is quiet. For tests marked ``timing``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

CaseT = TypeVar("CaseT")


def growth(work: Callable[[CaseT], object], small: CaseT, large: CaseT, tries: int = 5) -> float:
    """Processor time of the work on the large case by that on the small one, each the best of some tries.

    Four times the size takes 4 times as long where the work grows with it, and 16 times where it grows with its square.
    """
    return _ratio(lambda: work(large), lambda: work(small), tries, time.process_time)


def ratio(work: Callable[[], object], other: Callable[[], object], tries: int = 7) -> float:
    """Time that the work takes by that which the other one takes, each the best of some tries."""
    return _ratio(work, other, tries, time.perf_counter)


def _ratio(work: Callable[[], object], other: Callable[[], object], tries: int, clock: Callable[[], float]) -> float:
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(tries):  # in turn, so that whatever else goes on is the same for both
        for call, times in zip((work, other), took, strict=True):
            started = clock()
            call()
            times.append(clock() - started)
    return min(took[0]) / min(took[1])
