"""The worker process: it loads the engine once, then runs one job after another until it is told to exit.

The supervisor runs it as ``python -m diarist.jobs.workers.worker``. ``diarist.jobs.workers.ipc`` describes the messages
between the two.
"""

from __future__ import annotations

import logging
import threading

from diarist.errors import ServiceError
from diarist.jobs.db.job_store import open_store
from diarist.jobs.workers import ipc
from diarist.jobs.workers.chunk_runner import ChunkRunner
from diarist.jobs.workers.context import POLL_S, STORE_RETRY_S, WorkerContext
from diarist.jobs.workers.engine import LoadEngine, TranscribeFile
from diarist.jobs.workers.engine_startup import LOAD_RETRY_S, start_engine
from diarist.jobs.workers.ipc import WorkerChannel, WorkerConfig
from diarist.jobs.workers.job_runner import JobRunner
from diarist.jobs.workers.shutdown import shutdown_watchdog
from diarist.observability import logs, tracing
from diarist.protocols import Engine

# The name is given explicitly: this module is called __main__ when it is run as a program.
logger = logging.getLogger("diarist.jobs.workers.worker")

CHUNK_POLL_S = 0.1
"""The time between two attempts to claim a chunk, shortly after this worker processed one."""


def run_worker(
    config: WorkerConfig,
    channel: WorkerChannel,
    load_engine: LoadEngine,
    transcribe: TranscribeFile,
    *,
    load_retry_s: float = LOAD_RETRY_S,
) -> None:
    """Run jobs until the worker is told to exit.

    If the work does not stop within ``EXIT_GRACE_S`` after that, the process is ended.
    """
    store = open_store(config.settings)
    stopped = threading.Event()
    context = WorkerContext(config, channel, store)
    watchdog = threading.Thread(
        target=shutdown_watchdog, args=(channel.shutdown, stopped, context.abort), name="shutdown-watchdog", daemon=True
    )
    watchdog.start()
    try:
        engine = start_engine(context, load_engine, load_retry_s)
        if engine is not None:
            serve_jobs(context, engine, transcribe)
    finally:
        stopped.set()
        store.close()


def serve_jobs(context: WorkerContext, engine: Engine, transcribe: TranscribeFile) -> None:
    """Run jobs, and chunks of other workers' jobs when no job is waiting, until the worker is told to exit."""
    jobs = JobRunner(context, engine, transcribe)
    chunks = ChunkRunner(context, engine, jobs.preemption)
    channel = context.channel
    while not context.stopping:
        channel.wake.clear()
        try:
            worked = jobs.run_next() or chunks.run_next()
        except ServiceError as error:
            logger.error("No job can be claimed: %s", error)  # noqa: TRY400 - the message is complete
            channel.shutdown.wait(STORE_RETRY_S)
            continue
        except Exception:
            # A job that a newer version wrote may be the cause. Loading the engine again would not help.
            logger.exception("No job can be claimed because of an unexpected error")
            channel.shutdown.wait(STORE_RETRY_S)
            continue
        if not worked:
            channel.wake.wait(CHUNK_POLL_S if chunks.recently_active else POLL_S)


def main(load_engine: LoadEngine, transcribe: TranscribeFile, *, load_retry_s: float = LOAD_RETRY_S) -> None:
    """Run a worker process from its configuration to its end, with this engine."""
    channel = WorkerChannel()
    config = channel.config()
    channel.listen()
    channel.send(ipc.ALIVE)
    logs.configure_worker(config.settings, config.worker)
    tracing.configure(config.settings, "worker", config.worker)
    run_worker(config, channel, load_engine, transcribe, load_retry_s=load_retry_s)


if __name__ == "__main__":
    from diarist.jobs.workers.engine import load_engine, transcribe_file

    main(load_engine, transcribe_file)
