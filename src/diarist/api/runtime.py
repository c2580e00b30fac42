"""What the handlers share: the settings, the jobs, and whether the service is about to stop."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace

from flask import current_app

from diarist.background_refresh import RefreshingValue
from diarist.errors import EngineUnavailable, ServiceError
from diarist.jobs.model import JobState, PoolStatus
from diarist.jobs.service import JobService
from diarist.settings import Settings
from diarist.types import Seconds

logger = logging.getLogger(__name__)

SPARE_THREADS = 2
"""Threads that no waiting caller and no listener can hold: what answers ``/status``."""

STOPPING = "The service is stopping. Send the recording again when it is back."


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

    def __init__(self, jobs: JobService) -> None:
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
        report = self._jobs.pool_status()
        try:
            counts = self._jobs.store.count_by_state()
            return ServiceStatus(report, counts[JobState.QUEUED], counts[JobState.RUNNING])
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
    jobs: JobService
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
        report = self.jobs.pool_status()
        if report.state == "error":
            raise EngineUnavailable(" ".join(("The engine is not available.", *report.errors)))


def runtime() -> Runtime:
    """The runtime of the application that answers this request."""
    found: Runtime = current_app.extensions["diarist"]
    return found
