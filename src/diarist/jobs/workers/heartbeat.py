"""The heartbeat of a worker process and the renewal of its leases, both independent of its main thread.

There are two threads. One sends heartbeats to the supervisor and never blocks. The other one talks to the store, which
may not answer for longer than a lease.
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

PROGRESS_INTERVAL_S = 0.25
"""The shortest time between two writes of the progress to the store."""

HEARTBEAT_INTERVAL_S = 0.5
"""The longest time between two heartbeats; it is shorter if the lease is short."""

STOP_S = 1.0
"""How long work may take to stop by itself after its lease was lost: native code cannot be interrupted for seconds."""


RenewLease: TypeAlias = Callable[[str, float], bool]
"""Extends a lease and stores the stage and the progress. Returns False if the lease has been lost."""


@dataclass(slots=True)
class _Lease:
    """A lease that this worker holds: of a job, or of a chunk of another worker's job."""

    renew: RenewLease
    job: Job | None
    stage: str
    progress: float = 0.0
    executing: bool = False
    """Whether the work itself is running. Before and after it, only the store is called."""

    lost_at: float | None = None
    """When the store reported that the lease is lost, on the monotonic clock."""


class Heartbeat:
    """Sends heartbeats and renews the leases of the jobs that this worker holds, in its own threads.

    A worker may hold several jobs: one that is running, and others that it has interrupted. If work makes no
    progress for ``settings.job_stall_s``, heartbeats and renewals stop, and the supervisor ends the process.

    Args:
        store: holds the leases.
        worker: the name of the worker that holds them.
        settings: provides ``job_lease_s`` and ``job_stall_s``.
        send_alive: sends a heartbeat to the supervisor; it must not block.
        report_status: repeats the worker's status report in the store; it may raise ``ServiceError``.
        shutdown: set when the worker must exit; work is then stopped as if it had been canceled.
        on_overdue: called once, if work whose lease was lost has not stopped after ``STOP_S``.
    """

    def __init__(
        self,
        store: JobStore,
        worker: str,
        settings: Settings,
        send_alive: Callable[[], None],
        report_status: Callable[[], None],
        shutdown: threading.Event,
        on_overdue: Callable[[], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._settings = settings
        self._send_alive = send_alive
        self._report_status = report_status
        self._shutdown = shutdown
        self._on_overdue = on_overdue
        self._changed = threading.Condition()
        self._renewal_requested = False
        self._leases: list[_Lease] = []
        self._progressed_at = time.monotonic()
        self._store_answered_at = time.monotonic()
        self._interval_s = min(HEARTBEAT_INTERVAL_S, settings.job_lease_s / 4)
        self._beating = True
        threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()
        threading.Thread(target=self._renew_leases, name="lease-renewer", daemon=True).start()

    def renew_soon(self) -> None:
        """Renew the leases soon, because a job may have been canceled."""
        with self._changed:
            self._renewal_requested = True
            self._changed.notify()

    @property
    def held_jobs(self) -> tuple[Job, ...]:
        """The jobs that this worker holds and has not lost as far as it knows; the running one comes last."""
        with self._changed:
            return tuple(lease.job for lease in self._leases if lease.job is not None and lease.lost_at is None)

    @property
    def depth(self) -> int:
        """The number of leases that are held: one for the running work, and one for each interrupted job."""
        return len(self._leases)

    @contextmanager
    def hold_job(self, job: Job) -> Iterator[None]:
        """Renew the lease of ``job`` while the block runs; work that was running before is interrupted until then."""

        def renew(stage: str, progress: float) -> bool:
            return self._store.renew(job.id, self._worker, self._settings.job_lease_s, stage, progress)

        with self._hold(_Lease(renew, job, job.stage)):
            yield

    @contextmanager
    def hold_lease(self, renew: RenewLease) -> Iterator[None]:
        """Do the same as ``hold_job`` for a lease of another kind."""
        with self._hold(_Lease(renew, None, "")):
            yield

    @contextmanager
    def _hold(self, lease: _Lease) -> Iterator[None]:
        with self._changed:
            self._leases.append(lease)
            self._progressed_at = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._leases.remove(lease)
                self._progressed_at = time.monotonic()
                if self._leases and self._leases[-1].lost_at is not None:
                    self._leases[-1].lost_at = self._progressed_at  # it could not stop while it was interrupted

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Execute the work of the latest lease: the block must end soon after the lease is lost, or the process ends.

        Whatever follows the block writes the outcome, and retries while the store is unavailable. Ending the process
        then would gain nothing, and the engine would have to be loaded again.
        """
        with self._changed:
            lease = self._leases[-1]
            lease.executing = True
        try:
            yield
        finally:
            with self._changed:
                lease.executing = False

    def progress(self, stage: str, done: float) -> None:
        """Record the progress of the running job (a ``Progress``). This is cheap and never waits for the store.

        Raises:
            Cancelled: the lease is lost, or the worker must exit.
        """
        with self._changed:
            lease = self._leases[-1]
            self._progressed_at = time.monotonic()
            lease.stage, lease.progress = stage, max(lease.progress, min(done, 1.0))
            self._renewal_requested = True
            self._changed.notify()
            lost = lease.lost_at is not None
        if lost:
            raise Cancelled("The job was canceled.")
        if self._shutdown.is_set():
            raise Cancelled("The worker was asked to stop.")

    def touch(self) -> None:
        """Record that the main thread is active, although the job makes no progress."""
        with self._changed:
            self._progressed_at = time.monotonic()

    @property
    def store_answered_at(self) -> float:
        """When the store last answered, on the monotonic clock."""
        return self._store_answered_at

    def still_held(self) -> bool:
        """Renew the lease of the running job now, and return whether this worker still holds it."""
        with self._changed:
            lease = self._leases[-1] if self._leases else None
        return lease is not None and self._renew(lease)

    def _send_heartbeats(self) -> None:
        while self._beating:
            with self._changed:
                stalled = self._is_stalled()
            if not stalled:
                self._send_alive()
            time.sleep(self._interval_s)

    def _is_stalled(self) -> bool:
        return bool(self._leases) and time.monotonic() - self._progressed_at > self._settings.job_stall_s

    def _renew_leases(self) -> None:
        pause_s = min(PROGRESS_INTERVAL_S, self._interval_s)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._renewal_requested, timeout=self._interval_s)
                self._renewal_requested = False
                leases = tuple(self._leases)
                stalled = self._is_stalled()
            if stalled:
                continue
            try:
                for lease in leases:
                    if lease.lost_at is None:
                        self._renew(lease)
                self._report_status()
            except ServiceError as error:
                logger.warning("The status of the worker cannot be reported: %s", error)
            except Exception:
                # Without this thread all leases would expire.
                logger.exception("The leases could not be renewed because of an unexpected error")
            while (left_s := self._grace_left_s()) is not None:
                if left_s <= 0:
                    logger.warning("The work on a job whose lease was lost does not stop: this process is ended")
                    self._beating = False  # if the process cannot even end itself, the supervisor ends it
                    self._on_overdue()
                    return
                time.sleep(min(left_s, pause_s))
            time.sleep(pause_s)

    def _grace_left_s(self) -> float | None:
        """Return how long work whose lease is lost may take to stop; None if there is none, or it has stopped."""
        with self._changed:
            lease = self._leases[-1] if self._leases else None
            if lease is None or lease.lost_at is None or not lease.executing:
                return None
            return lease.lost_at + STOP_S - time.monotonic()

    def _renew(self, lease: _Lease) -> bool:
        try:
            held = lease.renew(lease.stage, lease.progress)
        except ServiceError as error:
            # A lease is long enough for a few failures. If it has expired, the next response of the store reports it.
            logger.warning("The lease could not be renewed: %s", error)
            return True
        self._store_answered_at = time.monotonic()
        if not held:
            with self._changed:
                if lease.lost_at is None:
                    lease.lost_at = time.monotonic()
        return held
