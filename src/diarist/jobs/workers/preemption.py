"""Interrupting a long job for a request whose caller is waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from diarist.errors import ServiceError
from diarist.jobs.model import Job, JobKind
from diarist.jobs.workers.context import POLL_S, WorkerContext
from diarist.types import StatusProgress

logger = logging.getLogger(__name__)

PREEMPTIBLE_AFTER_S = 20.0
"""A request can be interrupted by another one after this time. Any other job can always be interrupted."""

MAX_DEPTH = 3
"""The largest number of jobs in progress: the running one, and those that were interrupted for requests."""

UNREACHABLE_S = 30.0
"""How long a running job does not check for requests after the store was unavailable."""


class Preemption:
    """Runs a waiting request in the middle of a long job: the engine is loaded already, and fits into memory once.

    Args:
        context: the worker.
        run_next_request: claims the next request and runs it to its end. Returns False if none is waiting.
    """

    def __init__(self, context: WorkerContext, run_next_request: Callable[[], bool]) -> None:
        self._context = context
        self._run_next_request = run_next_request
        self._polled_at = 0.0
        self._poll_from = 0.0

    def progress_of(self, job: Job | None) -> StatusProgress:
        """Return the progress callback of a job that starts now, or of a chunk of another worker's job (None).

        The callback reports the progress and runs a waiting request first. It raises ``Cancelled`` if the job was
        canceled, or the worker must exit.
        """
        heartbeat = self._context.heartbeat
        started_at = time.monotonic()

        def progress(stage: str, done: float) -> None:
            heartbeat.progress(stage, done)
            if self._may_interrupt(job, stage, started_at) and self._try_request():
                heartbeat.progress(stage, done)  # the job may have been canceled while it was interrupted

        return progress

    def _may_interrupt(self, job: Job | None, stage: str, started_at: float) -> bool:
        context, now = self._context, time.monotonic()
        if stage == "decode" or context.heartbeat.depth >= MAX_DEPTH or context.stopping or now < self._poll_from:
            return False
        if job is not None and job.spec.kind is JobKind.REQUEST and now - started_at < PREEMPTIBLE_AFTER_S:
            return False
        return context.channel.wake.is_set() or now - self._polled_at >= POLL_S

    def _try_request(self) -> bool:
        self._polled_at = time.monotonic()
        self._context.channel.wake.clear()
        try:
            if self._run_next_request():
                logger.info("Job resumed after it was interrupted for a waiting request")
                return True
        except ServiceError as error:
            # Every attempt delays the job for as long as the store does not answer.
            self._poll_from = time.monotonic() + UNREACHABLE_S
            logger.warning("No waiting request can be claimed: %s", error)
        return False
