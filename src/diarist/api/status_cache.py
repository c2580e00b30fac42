"""The state of the service for ``/status`` and the health checks, read from the job store in the background."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from diarist.background_refresh import RefreshingValue
from diarist.errors import ServiceError
from diarist.jobs.model import JobState, PoolStatus
from diarist.jobs.service import JobService
from diarist.types import Seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of the workers and the numbers of unfinished jobs."""

    report: PoolStatus
    waiting: int
    running: int
    store_answers: bool = True
    age_s: Seconds | None = 0.0
    """How long ago this was read; None if nothing has been read yet."""

    storage_error: str | None = None
    """Why recordings cannot be stored; None if they can."""


class StatusCache:
    """Reads the state of the service at most ten times a second, however many clients poll.

    While the job store does not answer, the last known state is returned.
    """

    MAX_AGE_S = 0.1

    TIMEOUT_S = 0.5
    """How long a request waits for the job store. Health checks often have a timeout of one second."""

    UNAVAILABLE_AFTER_S = 5.0
    """A job store that has not answered for this long is reported as unavailable."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs
        self._storage_failing = False
        self._status = RefreshingValue("status", self._read, self.MAX_AGE_S)

    def get(self) -> ServiceStatus:
        """Return the state of the service within ``TIMEOUT_S``.

        It is at most ``MAX_AGE_S`` old, or the last known state if the job store does not answer.
        """
        try:
            reading = self._status.get(self.MAX_AGE_S, self.TIMEOUT_S)
        except ServiceError as error:
            return self._without_store(error.public_message)
        failing_s = 0.0 if reading is not None else self._status.failing_s
        if failing_s > self.UNAVAILABLE_AFTER_S:
            return self._without_store(
                f"The job store has not answered for {failing_s:.0f} s. Check that the database is running and "
                "that its disk works. Everything else shown here is the last known state."
            )
        return self._last_known()

    def _read(self) -> ServiceStatus:
        report = self._jobs.pool_status()
        try:
            counts = self._jobs.store.count_by_state()
            return ServiceStatus(
                report, counts[JobState.QUEUED], counts[JobState.RUNNING], storage_error=self._storage_error()
            )
        except ServiceError as error:
            logger.warning("The jobs cannot be counted: %s", error)
            raise

    def _storage_error(self) -> str | None:
        try:
            self._jobs.check_storage()
        except ServiceError as error:
            if not self._storage_failing:
                logger.error("No recordings are accepted: %s", error)  # noqa: TRY400 - the message is complete
            self._storage_failing = True
            return error.public_message
        self._storage_failing = False
        return None

    def _last_known(self) -> ServiceStatus:
        last = self._status.last
        if last is None:
            return ServiceStatus(PoolStatus.from_reports(()), 0, 0, store_answers=False, age_s=None)
        return replace(last.value, age_s=last.age_s)

    def _without_store(self, message: str) -> ServiceStatus:
        """Return the last known state with the error ``message``."""
        last = self._last_known()
        errors = (*dict.fromkeys((*last.report.errors, message)),)
        return replace(last, report=replace(last.report, state="error", errors=errors), store_answers=False)
