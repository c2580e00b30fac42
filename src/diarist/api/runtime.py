"""What the handlers share: the settings, the jobs, and whether the service is about to stop."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from flask import current_app

from diarist.background_refresh import RefreshingValue
from diarist.errors import EngineUnavailable, ServiceError
from diarist.jobs.db.metrics_snapshot import MetricsSnapshot
from diarist.jobs.db.outbox import Delivery
from diarist.jobs.model import Job, JobEvent, JobFilter, JobPage, JobSpec, PoolStatus
from diarist.settings import Settings
from diarist.types import Seconds, Transcript, Utterance

logger = logging.getLogger(__name__)

SPARE_THREADS = 2
"""Threads that no waiting caller and no listener can hold: what answers ``/status``."""

STOPPING = "The service is stopping. Send the recording again when it is back."


class Jobs(Protocol):
    """The part of ``diarist.jobs.service.JobService`` that HTTP needs.

    Every method may raise ``StoreUnavailable``; those that take the id of a job raise ``JobNotFound`` unless it says
    otherwise.
    """

    def check_room(self, size_bytes: int = 0, spec: JobSpec | None = None, limit: int | None = None) -> None:
        """Refuse an upload of about this size before it is read. Raises ``QueueFull`` or ``StorageFull``."""
        ...

    def submit(
        self, recording: BinaryIO | Path, spec: JobSpec, limit: int | None = None, job_id: str | None = None
    ) -> Job:
        """Take a recording on; a file is moved.

        Gives the earlier job back where the owner made one with the same idempotency key. ``limit``: how many
        unfinished jobs the owner may have, where that is not MAX_QUEUED_PER_KEY. ``job_id``: of a new job.

        Raises:
            QueueFull: there are as many as may be.
            StorageFull: there is too little disk space.
            IdempotencyConflict: the earlier job with that key was another order.
        """
        ...

    def submit_url(self, spec: JobSpec, limit: int | None = None, job_id: str | None = None) -> Job:
        """Take an order on whose recording is fetched from its ``source_url``. Raises as ``submit`` does."""
        ...

    def repeated(self, owner: str, idempotency_key: str, fingerprint: str) -> Job | None:
        """The owner's job with this key. Raises ``IdempotencyConflict`` where it was another order."""
        ...

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """The job as it is. Raises ``JobNotFound`` also where it is another owner's, or a waiting request."""
        ...

    def page(self, wanted: JobFilter, limit: int, cursor: str | None) -> JobPage:
        """Jobs, newest first. Raises ``InvalidOption`` for a cursor that is none."""
        ...

    def position(self, job_id: str) -> int | None:
        """The place of a job in the line, 1 for the next; None where it is in none. Never raises ``JobNotFound``."""
        ...

    def eta_s(self, job: Job) -> float | None:
        """Seconds until the job has probably ended; None where nobody can say."""
        ...

    def events(self, job_id: str, after: int = 0) -> tuple[JobEvent, ...]:
        """What happened after the event with the number ``after``, in order; some of it, where it is much."""
        ...

    def partial(self, job_id: str) -> tuple[Utterance, ...]:
        """The utterances that are final already."""
        ...

    def cancel(self, job_id: str) -> Job:
        """Stop a job that has not ended; the job as it is then."""
        ...

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """How the webhook of a job was sent, oldest first."""
        ...

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it has ended, or as it is after ``timeout`` seconds.

        Raises:
            EngineUnavailable: the service stops, or the engine cannot be loaded and the job has not been begun.
        """
        ...

    def result(self, job_id: str) -> Transcript:
        """What a job that succeeded found. Raises what it failed with."""
        ...

    def discard(self, job_id: str) -> None:
        """Stop it where it has not ended, and forget it with all that belongs to it. No error where it is gone."""
        ...

    def counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many are being worked on."""
        ...

    def report(self) -> PoolStatus:
        """What the workers last said of themselves; ``loading`` before any said anything. Never raises."""
        ...

    def metrics_snapshot(self) -> MetricsSnapshot:
        """What the metrics are made of."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How the service is: what its workers said, and how many jobs wait and run."""

    report: PoolStatus
    waiting: int
    running: int
    store_answers: bool = True
    age_s: Seconds | None = 0.0
    """How old that is; None where nothing is known yet."""


class StatusCache:
    """Looks at the job store for everyone who asks, ten times a second at the most: pollers cost next to nothing.

    Where the store does not answer, what was last known is told.
    """

    MAX_AGE_S = 0.1

    PATIENCE_S = 0.5
    """How long a poller waits for the store: whoever probes a service often has a second."""

    SILENT_S = 5.0
    """A store that has not answered for so long is told to be away."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._glances = RefreshingValue("status", self._read, self.MAX_AGE_S)

    def look(self) -> ServiceStatus:
        """How the service is now or was ``MAX_AGE_S`` ago, or what was last known where the store does not answer.

        Within ``PATIENCE_S``.
        """
        try:
            reading = self._glances.get(self.MAX_AGE_S, self.PATIENCE_S)
        except ServiceError as error:
            return self._without_store(str(error))
        silent_s = 0.0 if reading is not None else self._glances.failing_s
        if silent_s > self.SILENT_S:
            return self._without_store(
                f"The job store has not answered for {silent_s:.0f} s. See whether the database is up and its disk "
                "works; the rest is what was last known."
            )
        return self._last()

    def _read(self) -> ServiceStatus:
        report = self._jobs.report()
        try:
            return ServiceStatus(report, *self._jobs.counts())
        except ServiceError as error:
            logger.warning("The jobs cannot be counted: %s", error)
            raise

    def _last(self) -> ServiceStatus:
        """What is known, if only a moment old."""
        last = self._glances.last
        if last is None:
            return ServiceStatus(PoolStatus.from_reports(()), 0, 0, store_answers=False, age_s=None)
        return replace(last.value, age_s=last.age_s)

    def _without_store(self, why: str) -> ServiceStatus:
        """What is known, told as an error."""
        last = self._last()
        errors = (*dict.fromkeys((*last.report.errors, why)),)
        return replace(last, report=replace(last.report, state="error", errors=errors), store_answers=False)


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """One per application, in ``app.extensions["diarist"]``."""

    settings: Settings
    jobs: Jobs
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the service begins to stop: callers that wait are answered 503 within half a second."""

    gate: threading.BoundedSemaphore = field(init=False)
    """A place for each caller of ``/diarize``, so that some threads are always left to answer ``/status``."""

    listeners: threading.BoundedSemaphore = field(init=False)
    """A place for each listener to the events of a job, for the same reason."""

    status_cache: StatusCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status_cache", StatusCache(self.jobs))
        object.__setattr__(self, "gate", threading.BoundedSemaphore(self.settings.max_waiting))
        object.__setattr__(self, "listeners", threading.BoundedSemaphore(self.settings.max_listeners))

    def check_going_on(self) -> None:
        """Refuse work that is for later. Raises ``EngineUnavailable`` where the service stops."""
        if self.stopping.is_set():
            raise EngineUnavailable(STOPPING)

    def check_available(self) -> None:
        """Refuse work that cannot be done now.

        Raises:
            EngineUnavailable: the service stops, or its engine cannot be loaded. An engine that still loads is no
                reason: the caller waits for it.
        """
        self.check_going_on()
        report = self.jobs.report()
        if report.state == "error":
            raise EngineUnavailable(" ".join(("The engine is not available.", *report.errors)))


def runtime() -> Runtime:
    """The runtime of the application that answers this request."""
    found: Runtime = current_app.extensions["diarist"]
    return found
