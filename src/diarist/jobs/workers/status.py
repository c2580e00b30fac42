"""The status reports of a worker process in the job store."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace

from diarist.errors import ServiceError
from diarist.jobs.db.database import utc_now
from diarist.jobs.model import WorkerReport
from diarist.jobs.store import JobStore
from diarist.protocols import Engine
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 15.0
"""The time between two reports while the status does not change."""


class StatusReporter:
    """Reports to the store whether the worker is loading, ready or in error, and which models it has.

    Args:
        store: receives the reports.
        worker: the name of the worker.
        error: why earlier processes of this worker failed; reported until the worker is ready.
    """

    def __init__(self, store: JobStore, worker: str, error: str | None) -> None:
        self._store = store
        self._worker = worker
        self._error = error
        self._models: tuple[ModelInfo, ...] = ()
        self._last: WorkerReport | None = None
        self._reported_at = time.monotonic()

    def report_models(self, models: tuple[ModelInfo, ...]) -> None:
        """Report the models and their states while the engine is not loaded."""
        self._models = models
        self._report("loading" if self._error is None else "error", models)

    def report_loading(self) -> None:
        """Report that the engine is about to be loaded, with the models and the error that are known so far."""
        self.report_models(self._models)

    def report_error(self, error: str) -> None:
        """Report why the engine could not be loaded."""
        self._error = error
        self.report_models(self._models)

    def report_ready(self, engine: Engine, queues: tuple[str, ...]) -> None:
        """Report that the engine is loaded, which GPU it does not use and why, and which queues the worker serves."""
        self._error = None
        self._report("ready", engine.models, engine.device, queues, engine.notices)

    def repeat(self) -> None:
        """Repeat the last report every ``REPORT_INTERVAL_S``: a worker that stops reporting is considered dead.

        Raises:
            ServiceError: the store cannot be written.
        """
        if self._last is None or time.monotonic() - self._reported_at < REPORT_INTERVAL_S:
            return
        self._reported_at = time.monotonic()
        self._store.save_worker_report(replace(self._last, reported_at=utc_now()))

    def _report(
        self,
        state: str,
        models: tuple[ModelInfo, ...],
        device: str = "",
        queues: tuple[str, ...] = (),
        notices: tuple[str, ...] = (),
    ) -> None:
        errors = notices if self._error is None else (self._error,)
        self._reported_at = time.monotonic()
        self._last = WorkerReport(self._worker, os.getpid(), state, models, errors, utc_now(), device, queues)
        try:
            self._store.save_worker_report(self._last)
        except ServiceError as error:
            # The next call of ``repeat`` reports it again.
            self._reported_at -= REPORT_INTERVAL_S
            logger.warning("The status of the worker cannot be reported: %s", error)
