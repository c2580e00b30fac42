"""Parallel work on several cores whose results come in the order of the tasks.

Two ONNX sessions with one thread each get more out of two cores than one session with two threads, which wait for each
other after every operator.
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

MAX_WORKERS = 8
"""Each worker needs buffers of its own. Any further threads go to the operators of each worker."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """A division of threads into workers that run at the same time."""

    workers: int
    """The number of tasks that are processed at once."""

    threads: int
    """The number of threads of each worker."""

    @classmethod
    def of(cls, threads: int, max_workers: int = MAX_WORKERS) -> Parallelism:
        """Divide this number of threads."""
        workers = max(1, min(threads, max_workers))
        return cls(workers, max(1, threads // workers))


class Abandoned(Exception):
    """Raised in a worker thread whose result is no longer needed, to end it. It never leaves the pool."""


class ProgressRelay:
    """Passes the progress of worker threads to the thread that waits for them, where the callback may raise.

    Args:
        report: Called with a task and its progress in the thread that made the relay, while ``map_in_order`` waits.
    """

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self._report = report
        self._owner = threading.get_ident()
        self._posts: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self._closed = False

    def post(self, task: int, done: float) -> None:
        """Report from any thread that a share of a task is done (0..1).

        Raises:
            Abandoned: The relay is closed.
        """
        if threading.get_ident() == self._owner:
            self._report(task, done)
        elif self._closed:
            raise Abandoned
        else:
            self._posts.put((task, done))

    def wait(self, future: Future[Any]) -> None:
        """Report what is posted until the future is done."""
        future.add_done_callback(lambda _: self._posts.put(None))
        while (post := self._posts.get()) is not None or not future.done():
            if post is not None:
                self._report(*post)

    def close(self) -> None:
        """End the workers that post from now on."""
        self._closed = True


def map_in_order(
    function: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], workers: int, relay: ProgressRelay | None = None
) -> Generator[ResultT, None, None]:
    """Yield the result of ``function`` for each task, in the order of the tasks, with several workers at once.

    Results are yielded in the caller's thread, and at most twice as many tasks as there are workers wait for it. Close
    the generator (``contextlib.closing``) to stop early: tasks that have not started are dropped, and those that have
    are waited for, until they end or next report to the relay. An exception of ``function`` is raised in its task's
    place.
    """
    if workers == 1:
        yield from map(function, tasks)
        return

    def result(future: Future[ResultT]) -> ResultT:
        if relay is not None:
            relay.wait(future)
        return future.result()

    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        pending: deque[Future[ResultT]] = deque()
        try:
            for task in tasks:
                pending.append(pool.submit(function, task))
                if len(pending) > 2 * workers:
                    yield result(pending.popleft())
            while pending:
                yield result(pending.popleft())
        finally:
            if relay is not None:
                relay.close()
            for future in pending:
                future.cancel()
