"""Running chunks of jobs that other workers of a fleet hold."""

from __future__ import annotations

import logging
import time

from diarist.errors import Cancelled, MediaMissing
from diarist.jobs.workers.context import STORE_RETRY_S, WorkerContext
from diarist.jobs.workers.engine_startup import queues_of
from diarist.jobs.workers.preemption import Preemption
from diarist.jobs.workers.scatter import engine_signature, process_chunk
from diarist.observability import logs, tracing
from diarist.protocols import Engine

logger = logging.getLogger(__name__)

RECENT_S = 20.0
"""A worker that processed a chunk this recently is probably needed for the next stage of the recording."""


class ChunkRunner:
    """Claims chunks of long recordings and processes each one.

    Args:
        context: the worker.
        engine: processes the chunks.
        preemption: allows requests to interrupt a chunk.
    """

    def __init__(self, context: WorkerContext, engine: Engine, preemption: Preemption) -> None:
        self._context = context
        self._engine = engine
        self._preemption = preemption
        self._queues = queues_of(engine, context.settings)
        self._processed_at = float("-inf")

    @property
    def recently_active(self) -> bool:
        """Whether this worker has processed a chunk in the last ``RECENT_S`` seconds."""
        return time.monotonic() - self._processed_at < RECENT_S

    def run_next(self) -> bool:
        """Process the next chunk. Returns False if there is none, or if the service is not distributed.

        Raises:
            ServiceError: no chunk could be claimed.
        """
        context, lease_s = self._context, self._context.settings.job_lease_s
        if not context.settings.distributed:
            return False
        task = context.chunks.claim(context.worker, lease_s, engine_signature(self._engine), self._queues)
        if task is None:
            return False
        started_at = self._processed_at = time.monotonic()
        progress = self._preemption.progress_of(None)
        with (
            logs.log_context(request=task.request_id, job=task.job_id),
            tracing.span("chunk", parent=task.traceparent, kind="consumer", job_id=task.job_id, stage=task.chunk.stage),
            context.heartbeat.hold_lease(lambda *_: context.chunks.renew(task, context.worker, lease_s)),
        ):
            try:
                with context.heartbeat.executing():
                    process_chunk(task, self._engine, context.media, progress)
                context.chunks.complete(task, context.worker)
            except Cancelled:
                logger.info("Chunk abandoned: its job has ended, or this worker is shutting down")
                context.chunks.release(context.worker)
            except Exception as error:
                # The worker that holds the job will process the chunk instead, and report the error.
                if isinstance(error, MediaMissing):
                    logger.warning(
                        "Chunk abandoned: its job has ended, or MEDIA_URL is not the same place on all machines"
                    )
                else:
                    logger.exception("Chunk failed")
                context.chunks.release(context.worker)
                context.channel.shutdown.wait(STORE_RETRY_S)
            else:
                self._processed_at = time.monotonic()
                logger.info("Chunk processed: %s, %.2f s", task.chunk.stage, time.monotonic() - started_at)
        return True
