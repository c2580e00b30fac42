"""Work on several cores at once, in order: each core reads a piece of its own.

Two sessions of one thread each get more out of two cores than one session of two, whose threads wait for each other
after every operator.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

MAX = 8
"""Streams have buffers of their own; more threads than this are given to the operators of each."""


@dataclass(frozen=True, slots=True)
class Streams:
    """How many threads are divided."""

    count: int
    """Pieces that are worked on at once."""

    threads: int
    """Threads of each."""

    @classmethod
    def of(cls, threads: int, most: int = MAX) -> Streams:
        count = max(1, min(threads, most))
        return cls(count, max(1, threads // count))


class Abandoned(Exception):
    """Raised in a stream that nobody waits for any more: it ends, and nobody sees it."""


class Relay:
    """Carries what streams report to the thread that waits for them: progress is told by one thread, and may raise.

    Args:
        report: called in the thread that made the relay, while ``in_order`` waits there.
    """

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self._report = report
        self._owner = threading.get_ident()
        self._posts: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self._left = False

    def post(self, task: int, done: float) -> None:
        """Report that a part of a task is done (0..1), from any thread.

        Raises:
            Abandoned: nobody waits for this stream any more.
        """
        if threading.get_ident() == self._owner:
            self._report(task, done)
        elif self._left:
            raise Abandoned
        else:
            self._posts.put((task, done))

    def wait(self, future: Future[Any]) -> None:
        """Report what is posted until the future is done."""
        future.add_done_callback(lambda _: self._posts.put(None))
        while (post := self._posts.get()) is not None or not future.done():
            if post is not None:
                self._report(*post)

    def leave(self) -> None:
        """Streams that post from now on are ended."""
        self._left = True


def in_order(
    work: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], streams: int, relay: Relay | None = None
) -> Generator[ResultT, None, None]:
    """What ``work`` makes of each task, in the order of the tasks, ``streams`` of them at once.

    Results come in the caller's thread, and at most twice as many tasks as there are streams wait for it. Close the
    generator (``contextlib.closing``) to leave early: what has not begun is dropped, what has is waited for, to its end
    or until it next reports to the relay. What ``work`` raises comes out in its task's place.
    """
    if streams == 1:
        yield from map(work, tasks)
        return

    def result(future: Future[ResultT]) -> ResultT:
        if relay is not None:
            relay.wait(future)
        return future.result()

    with ThreadPoolExecutor(streams, thread_name_prefix="stream") as pool:
        waiting: deque[Future[ResultT]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > 2 * streams:
                    yield result(waiting.popleft())
            while waiting:
                yield result(waiting.popleft())
        finally:
            if relay is not None:
                relay.leave()
            for future in waiting:
                future.cancel()
