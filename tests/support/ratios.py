"""Time measurements as ratios within one run, which do not depend on the machine. For tests marked ``timing``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

CaseT = TypeVar("CaseT")


def growth(work: Callable[[CaseT], object], small: CaseT, large: CaseT, tries: int = 5) -> float:
    """Return the processor time for the large case relative to the small case, each the best of several tries.

    For four times the size the ratio is 4 if the time is linear in the size, and 16 if it is quadratic.
    """
    return _ratio(lambda: work(large), lambda: work(small), tries, time.process_time)


def ratio(work: Callable[[], object], other: Callable[[], object], tries: int = 7) -> float:
    """Return the time of one function relative to another, each the best of several tries."""
    return _ratio(work, other, tries, time.perf_counter)


def _ratio(work: Callable[[], object], other: Callable[[], object], tries: int, clock: Callable[[], float]) -> float:
    times_taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(tries):  # alternating, so that other load on the machine affects both equally
        for call, times in zip((work, other), times_taken, strict=True):
            started = clock()
            call()
            times.append(clock() - started)
    return min(times_taken[0]) / min(times_taken[1])
