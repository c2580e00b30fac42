"""Keeps a worker's hold on its job and tells the supervisor that it is well, whatever the main thread is in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diarist.errors import Cancelled, ServiceError
from diarist.jobs.model import Job, JobStore
from diarist.settings import Settings

logger = logging.getLogger(__name__)

NOTE_EVERY_S = 0.25
"""Progress is written to the store at most this often."""

BEAT_S = 0.5
"""Longest time between two signs of life; shorter where the lease is."""


class Keeper:
    """Renews the lease of the job that is held, from a thread of its own.

    Work that shows no progress for ``settings.job_stall_s`` gets no more help: the supervisor then hears nothing and
    ends the process.

    Args:
        store: where the lease is.
        worker: who holds it.
        settings: gives ``job_lease_s`` and ``job_stall_s``.
        alive: tells the supervisor.
        leave: set when the worker should end; the work is then stopped like work that is canceled.
    """

    def __init__(
        self, store: JobStore, worker: str, settings: Settings, alive: Callable[[], None], leave: threading.Event
    ) -> None:
        self._store = store
        self._worker = worker
        self._settings = settings
        self._alive = alive
        self._leave = leave
        self._changed = threading.Condition()
        self._news = False
        self._job: Job | None = None
        self._lost = False
        self._stage = ""
        self._done = 0.0
        self._sign_at = time.monotonic()
        threading.Thread(target=self._keep, name="keeper", daemon=True).start()

    @property
    def job(self) -> Job | None:
        """The job that is held."""
        return self._job

    @contextmanager
    def holding(self, job: Job) -> Iterator[None]:
        """Keep ``job`` for as long as the block runs."""
        with self._changed:
            self._job, self._lost, self._stage, self._done = job, False, job.stage, 0.0
            self._sign_at = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._job = None

    def progress(self, stage: str, done: float) -> None:
        """Note how far the job is: a ``Progress``. Cheap; never waits for the store.

        Raises:
            Cancelled: the job is no longer ours, or the worker should end.
        """
        with self._changed:
            self._sign_at = time.monotonic()
            self._stage, self._done = stage, max(self._done, min(done, 1.0))
            self._news = True
            self._changed.notify()
            lost = self._lost
        if lost:
            raise Cancelled("The job was canceled.")
        if self._leave.is_set():
            raise Cancelled("The worker was asked to stop.")

    def still_ours(self) -> bool:
        """Ask the store now, and wait for its answer."""
        with self._changed:
            job, stage, done = self._job, self._stage, self._done
        return job is not None and self._renew(job, stage, done)

    def _keep(self) -> None:
        beat_s = min(BEAT_S, self._settings.job_lease_s / 4)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._news, timeout=beat_s)
                self._news = False
                job, stage, done, lost = self._job, self._stage, self._done, self._lost
                quiet_s = time.monotonic() - self._sign_at
            if job is not None and quiet_s > self._settings.job_stall_s:
                continue
            self._alive()
            if job is not None and not lost:
                self._renew(job, stage, done)
            time.sleep(min(NOTE_EVERY_S, beat_s))

    def _renew(self, job: Job, stage: str, done: float) -> bool:
        try:
            ours = self._store.renew(job.id, self._worker, self._settings.job_lease_s, stage, done)
        except ServiceError as error:
            # The lease outlasts a few failures; if it does not, the next answer says so.
            logger.warning("The lease of the job could not be renewed: %s", error)
            return True
        if not ours:
            with self._changed:
                if self._job is job:
                    self._lost = True
        return ours
