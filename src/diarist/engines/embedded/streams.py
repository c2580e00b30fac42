"""Work on several cores at once, in order: each core reads a piece of its own.

Two sessions of one thread each get more out of two cores than one session of two, whose threads wait for each other
after every operator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

MOST = 8
"""Streams have buffers of their own; more threads than this are given to the operators of each."""


@dataclass(frozen=True, slots=True)
class Streams:
    """How many threads are divided."""

    count: int
    """Pieces that are worked on at once."""

    threads: int
    """Threads of each."""

    @classmethod
    def of(cls, threads: int) -> Streams:
        count = max(1, min(threads, MOST))
        return cls(count, max(1, threads // count))


def in_order(work: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], streams: int) -> Generator[ResultT, None, None]:
    """What ``work`` makes of each task, in the order of the tasks, ``streams`` of them at once.

    Results come in the caller's thread, and at most twice as many tasks as there are streams wait for it. Close the
    generator (``contextlib.closing``) to leave early: what has not begun is dropped, what has is waited for. What
    ``work`` raises comes out in its task's place.
    """
    if streams == 1:
        yield from map(work, tasks)
        return
    with ThreadPoolExecutor(streams, thread_name_prefix="stream") as pool:
        waiting: deque[Future[ResultT]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > 2 * streams:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
