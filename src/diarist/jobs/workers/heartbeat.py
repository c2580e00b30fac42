"""Keeps a worker's hold on its jobs and tells the supervisor that it is well, whatever the main thread is in.

Two threads: one that gives signs of life and waits for nobody, and one that speaks to the store, which may not answer
for longer than a lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from diarist.errors import Cancelled, ServiceError
from diarist.jobs.model import Job
from diarist.jobs.store import JobStore
from diarist.settings import Settings

logger = logging.getLogger(__name__)

NOTE_EVERY_S = 0.25
"""Progress is written to the store at most this often."""

HEARTBEAT_INTERVAL_S = 0.5
"""Longest time between two signs of life; shorter where the lease is."""

STOP_S = 1.0
"""How long work on a job that is lost may take to stop by itself: native code hears nothing for seconds."""


Renew: TypeAlias = Callable[[str, float], bool]
"""Lengthens a lease and notes the stage and the progress; False where what was held is lost."""


@dataclass(slots=True)
class _Hold:
    """Something in hand: a job, or a portion of another worker's."""

    renew: Renew
    job: Job | None
    stage: str
    done: float = 0.0
    works: bool = False
    """It is worked on; before and after that, only the store is spoken to."""

    lost_at: float | None = None
    """On the monotonic clock, once the store has said that the job is not ours any more."""


class Heartbeat:
    """Renews the leases of the jobs that are held, and gives signs of life, from threads of its own.

    There may be several jobs: one that is worked on, and others that were interrupted for it. Work that shows no
    progress for ``settings.job_stall_s`` gets no more help: the supervisor then hears nothing and ends the process.

    Args:
        store: where the leases are.
        worker: who holds them.
        settings: gives ``job_lease_s`` and ``job_stall_s``.
        alive: tells the supervisor; waits for nobody.
        report: tells the store, now and then, that the worker is there; may raise ``ServiceError``.
        leave: set when the worker should end; the work is then stopped like work that is canceled.
        overdue: called, once, when the work on a job that is lost has not stopped after ``STOP_S``.
    """

    def __init__(
        self,
        store: JobStore,
        worker: str,
        settings: Settings,
        alive: Callable[[], None],
        report: Callable[[], None],
        leave: threading.Event,
        overdue: Callable[[], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._settings = settings
        self._alive = alive
        self._report = report
        self._leave = leave
        self._overdue = overdue
        self._changed = threading.Condition()
        self._news = False
        self._holds: list[_Hold] = []
        self._sign_at = time.monotonic()
        self._answered_at = time.monotonic()
        self._beat_s = min(HEARTBEAT_INTERVAL_S, settings.job_lease_s / 4)
        self._beating = True
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        threading.Thread(target=self._keep, name="lease-renewer", daemon=True).start()

    def look(self) -> None:
        """Ask the store soon: somebody said that there are news."""
        with self._changed:
            self._news = True
            self._changed.notify()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Those that are held and not known to be lost; the one that is worked on comes last."""
        with self._changed:
            return tuple(hold.job for hold in self._holds if hold.job is not None and hold.lost_at is None)

    @property
    def depth(self) -> int:
        """How many things are in hand."""
        return len(self._holds)

    @contextmanager
    def holding(self, job: Job) -> Iterator[None]:
        """Keep ``job`` for as long as the block runs; what was held before is interrupted until then."""

        def renew(stage: str, done: float) -> bool:
            return self._store.renew(job.id, self._worker, self._settings.job_lease_s, stage, done)

        with self._keeping(_Hold(renew, job, job.stage)):
            yield

    @contextmanager
    def keeping(self, renew: Renew) -> Iterator[None]:
        """The same of something else that has a lease."""
        with self._keeping(_Hold(renew, None, "")):
            yield

    @contextmanager
    def _keeping(self, hold: _Hold) -> Iterator[None]:
        with self._changed:
            self._holds.append(hold)
            self._sign_at = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._holds.remove(hold)
                self._sign_at = time.monotonic()
                if self._holds and self._holds[-1].lost_at is not None:
                    self._holds[-1].lost_at = self._sign_at  # before, it could not stop

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on what is held last: the block has to end soon after that is lost, or the process does.

        What comes after the block writes how it went, again and again where the store is away: nothing is won by ending
        the process then, and the engine would have to be loaded anew.
        """
        with self._changed:
            hold = self._holds[-1]
            hold.works = True
        try:
            yield
        finally:
            with self._changed:
                hold.works = False

    def progress(self, stage: str, done: float) -> None:
        """Note how far the job that is worked on is: a ``Progress``. Cheap; never waits for the store.

        Raises:
            Cancelled: the job is no longer ours, or the worker should end.
        """
        with self._changed:
            hold = self._holds[-1]
            self._sign_at = time.monotonic()
            hold.stage, hold.done = stage, max(hold.done, min(done, 1.0))
            self._news = True
            self._changed.notify()
            lost = hold.lost_at is not None
        if lost:
            raise Cancelled("The job was canceled.")
        if self._leave.is_set():
            raise Cancelled("The worker was asked to stop.")

    def sign(self) -> None:
        """Note that something goes on, though it is no progress."""
        with self._changed:
            self._sign_at = time.monotonic()

    @property
    def answered_at(self) -> float:
        """When the store last answered, on the monotonic clock."""
        return self._answered_at

    def still_ours(self) -> bool:
        """Ask the store now whether the job that is worked on is, and wait for its answer."""
        with self._changed:
            hold = self._holds[-1] if self._holds else None
        return hold is not None and self._renew(hold)

    def _beat(self) -> None:
        while self._beating:
            with self._changed:
                stalls = self._stalls()
            if not stalls:
                self._alive()
            time.sleep(self._beat_s)

    def _stalls(self) -> bool:
        return bool(self._holds) and time.monotonic() - self._sign_at > self._settings.job_stall_s

    def _keep(self) -> None:
        pause_s = min(NOTE_EVERY_S, self._beat_s)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._news, timeout=self._beat_s)
                self._news = False
                holds = tuple(self._holds)
                stalls = self._stalls()
            if stalls:
                continue
            try:
                for hold in holds:
                    if hold.lost_at is None:
                        self._renew(hold)
                self._report()
            except ServiceError as error:
                logger.warning("The worker cannot be reported: %s", error)
            except Exception:
                # Without this thread all leases would run out.
                logger.exception("Keeping jobs failed in a way that nobody thought of")
            while (left_s := self._patience_s()) is not None:
                if left_s <= 0:
                    logger.warning("The work on a job that is lost does not stop: this process is ended for it")
                    self._beating = False  # if it cannot even end, the supervisor sees to that
                    self._overdue()
                    return
                time.sleep(min(left_s, pause_s))
            time.sleep(pause_s)

    def _patience_s(self) -> float | None:
        """How long the work on a job that is lost may still take; None where none is, or it has stopped."""
        with self._changed:
            hold = self._holds[-1] if self._holds else None
            if hold is None or hold.lost_at is None or not hold.works:
                return None
            return hold.lost_at + STOP_S - time.monotonic()

    def _renew(self, hold: _Hold) -> bool:
        try:
            ours = hold.renew(hold.stage, hold.done)
        except ServiceError as error:
            # The lease outlasts a few failures; if it does not, the next answer says so.
            logger.warning("The lease could not be renewed: %s", error)
            return True
        self._answered_at = time.monotonic()
        if not ours:
            with self._changed:
                if hold.lost_at is None:
                    hold.lost_at = time.monotonic()
        return ours
