"""Loading the engine of a worker process, with retries and status reports."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import replace

from diarist.errors import DiaristError, ServiceError
from diarist.jobs.db import metrics_storage
from diarist.jobs.model import ANY_QUEUE
from diarist.jobs.workers import ipc
from diarist.jobs.workers.context import POLL_S, WorkerContext
from diarist.jobs.workers.engine import LoadEngine
from diarist.protocols import Engine
from diarist.settings import Settings

logger = logging.getLogger(__name__)

UNEXPECTED_ERROR = "The engine cannot be loaded because of an unexpected error. See the log for details."
"""Reported for any exception that is not a ``DiaristError``: its message may contain internal details."""

LOAD_RETRY_S = 30.0
"""The time until the engine is loaded again after an error: a model source that is down may recover by itself."""


def start_engine(context: WorkerContext, load_engine: LoadEngine, retry_s: float) -> Engine | None:
    """Load the engine, retrying until this succeeds. Returns None if the worker must exit first."""
    while not context.stopping:
        context.status.report_loading()
        started = time.monotonic()
        try:
            engine = load_engine(context.settings, context.status.report_models)
        except Exception as error:  # noqa: BLE001 - any error is reported, and loading is retried
            _report_error(context, error)
            logger.info("The engine will be loaded again in %.0f s", retry_s)
            _wait(context, retry_s)
        else:
            return _ready(context, engine, time.monotonic() - started)
    return None


def _ready(context: WorkerContext, engine: Engine, duration_s: float) -> Engine:
    engine = replace(engine, device=_device_outside(engine.device, context.gpu))
    context.status.report_ready(engine, queues_of(engine, context.settings))
    with contextlib.suppress(ServiceError):
        context.store.observe_metric(metrics_storage.MODEL_LOAD_SECONDS, duration_s)
    context.channel.send(ipc.READY)
    logger.info("The engine %s is ready on %s after %.1f s", engine.name, engine.device, duration_s)
    return engine


def _report_error(context: WorkerContext, error: Exception) -> None:
    known = isinstance(error, DiaristError)
    # Anyone may read the status of the service.
    context.status.report_error(error.public_message if isinstance(error, DiaristError) else UNEXPECTED_ERROR)
    # The message of a DiaristError is complete; any other error needs its traceback.
    logger.error("The engine cannot be loaded: %s", error, exc_info=None if known else error)


def _wait(context: WorkerContext, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not context.stopping and (left_s := until - time.monotonic()) > 0:
        context.channel.shutdown.wait(min(left_s, POLL_S))


def queues_of(engine: Engine, settings: Settings) -> tuple[str, ...]:
    """Return the queues in QUEUES, or else those that the worker can serve: for any job, its device and its engine."""
    if settings.queues:
        return tuple(dict.fromkeys(name for name in settings.queues.split(",") if name))
    return (ANY_QUEUE, "gpu" if "cuda" in engine.device else "cpu", settings.engine)


def _device_outside(device: str, gpu: str | None) -> str:
    """Return the name of the device outside of this process, where its only GPU is the first one."""
    if gpu is None:
        return device
    return re.sub(r"^cuda(:0)?(?!\S)", f"cuda:{gpu}" if gpu.isdigit() else gpu, device)
