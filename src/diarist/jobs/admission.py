"""Admission of requests, which are jobs whose caller waits for the result: MAX_WAITING at most, shared fairly."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from diarist.errors import QueueFull, StoreUnavailable
from diarist.jobs.fair_share import has_free_slot
from diarist.jobs.model import Job, JobKind
from diarist.jobs.store import JobStore

STORE_TIMEOUT_S = 10.0
"""The longest time that a caller waits for another caller's query of the job store."""


def store_timed_out() -> StoreUnavailable:
    """Return the error for a job store that has not answered within ``STORE_TIMEOUT_S``."""
    return StoreUnavailable(
        "The job store does not answer. Try again later; whoever runs the service can check that the database is up."
    )


class RequestAdmission:
    """Admits at most ``max_waiting`` requests at once. Safe to call from any thread.

    A request counts from the moment at which its recording begins to arrive: first as a reservation here, then as a job
    in the store. Jobs without a waiting caller are counted by the store alone, in the transaction that creates them.
    """

    def __init__(self, store: JobStore, max_waiting: int) -> None:
        self._store = store
        self._max_waiting = max_waiting
        self._admitting = threading.Lock()
        self._counting = threading.Lock()
        self._reserved: Counter[str] = Counter()

    def check(self, owner: str) -> None:
        """Check that one more request of an owner would be admitted now.

        Args:
            owner: The owner that shares the places with others, or ``UNSHARED``.

        Raises:
            QueueFull: The maximum number of requests, or the share of the owner, has been reached.
            StoreUnavailable: The job store cannot be read.
        """
        with self._exclusive():
            self._check(owner)

    @contextmanager
    def reserve(self, owner: str) -> Iterator[Reservation]:
        """Hold one place for a request while its recording arrives. Arguments and errors as ``check``."""
        with self._exclusive():
            self._check(owner)
            with self._counting:
                self._reserved[owner] += 1
        with ExitStack() as place:
            place.callback(self._release, owner)
            yield Reservation(self._exclusive, place)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let one thread at a time count requests and create them."""
        if not self._admitting.acquire(timeout=STORE_TIMEOUT_S):
            raise store_timed_out()
        try:
            yield
        finally:
            self._admitting.release()

    def _check(self, owner: str) -> None:
        with self._counting:
            held = self._reserved + Counter(self._store.count_unfinished(JobKind.REQUEST))
        if has_free_slot(self._max_waiting, held, owner):
            return
        waiting = (
            f"{self._max_waiting} recordings wait already, which is the maximum of this service."
            if held.total() >= self._max_waiting
            else f"Your key has its share of the {self._max_waiting} recordings that may wait in this service."
        )
        raise QueueFull(f"{waiting} Send yours again in a minute; whoever runs the service can raise MAX_WAITING.")

    def _release(self, owner: str) -> None:
        # Without _exclusive: a caller that gives up must not wait for a store that blocks another caller.
        with self._counting:
            self._reserved[owner] -= 1


class Reservation:
    """A place that is held for one request."""

    def __init__(self, exclusive: Callable[[], AbstractContextManager[None]], place: ExitStack) -> None:
        self._exclusive = exclusive
        self._place = place

    def redeem(self, create: Callable[[], Job]) -> Job:
        """Create the job and release the place in one step. In two steps, others would see the request twice."""
        with self._exclusive():
            job = create()
            self._place.close()
        return job
