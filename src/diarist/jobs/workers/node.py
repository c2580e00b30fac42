"""Running the workers of one machine of a fleet, which are woken through the queue and drained before they stop."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from diarist import scratch
from diarist.errors import ConfigurationError
from diarist.jobs.db.job_store import open_store
from diarist.jobs.media.factory import open_media
from diarist.jobs.model import QUEUES
from diarist.jobs.retention import Sweeper
from diarist.jobs.workers.pool import COMMAND, WorkerPool
from diarist.models.selection import log_untested, recognizer_summary
from diarist.settings import Settings
from diarist.signals import stopped_by_signals

logger = logging.getLogger(__name__)

QUEUE_TIMEOUT_S = 10.0
"""How long connecting to the queue may take before the log says that workers poll for jobs meanwhile."""

SIGNAL_CHECK_S = 1.0
"""On Windows, Ctrl-C does not interrupt a thread that waits without a time limit."""


def run_workers(settings: Settings, command: Sequence[str] = COMMAND) -> None:
    """Run workers until SIGTERM, SIGHUP or Ctrl-C, then finish jobs for up to DRAIN_S and requeue the rest.

    Raises:
        ConfigurationError: QUEUE_URL is not set, or a setting is invalid.
        StoreUnavailable: the job store cannot be used.
    """
    if not settings.distributed:
        raise ConfigurationError(
            "QUEUE_URL is not set, so the service starts its workers itself: run `diarist serve`. For a fleet, set "
            "QUEUE_URL, DATABASE_URL, and MEDIA_URL, which must name a place that all machines can reach."
        )
    recognizer = recognizer_summary(settings)
    from diarist.jobs.workers.celery_wakeup import NotificationListener

    # Celery logs each message that it receives at INFO, and a lost connection at WARNING.
    for name in ("celery", "kombu", "amqp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    scratch.prepare_temp_dir(settings.temp_dir)
    stop = threading.Event()
    with ExitStack() as stack:
        store = open_store(settings)
        stack.callback(store.close)
        pool = WorkerPool(settings, store, lambda: None, command)
        listener = NotificationListener(settings.queue_url, subscribed_queues(settings), pool.wake)
        stack.callback(pool.stop)
        stack.enter_context(stopped_by_signals(stop.set))
        media = open_media(settings)
        stack.callback(media.close)
        sweeper = Sweeper(settings, store.database, store, media)
        stack.callback(sweeper.stop)
        pool.start()
        sweeper.start()
        listener.start()
        stack.callback(listener.stop)
        if not listener.wait_until_ready(QUEUE_TIMEOUT_S) and not stop.is_set():
            logger.warning("QUEUE_URL does not respond yet: workers poll for jobs until it does")
        logger.info(
            "Workers started on %s, recognizer %s, queues: %s", socket.gethostname(), recognizer,
            settings.queues or "all that they can serve",
        )  # fmt: skip
        log_untested(settings)
        while not stop.wait(SIGNAL_CHECK_S):
            pass
        logger.info("Shutting down: jobs in progress have %.0f s to finish", settings.drain_s)
        pool.drain(settings.drain_s)
        pool.stop()  # before everything else, because a container may be killed soon after DRAIN_S
    logger.info("All workers have stopped")


def subscribed_queues(settings: Settings) -> tuple[str, ...]:
    """Return the queues that this machine subscribes to: those in QUEUES, or else all of them.

    Which queues the workers can serve is only known once their engine is loaded.

    Raises:
        ConfigurationError: QUEUES contains a name that is not a queue.
    """
    if not settings.queues:
        return QUEUES
    chosen = tuple(dict.fromkeys(settings.queues.split(",")))
    if unknown := [name for name in chosen if name not in QUEUES]:
        raise ConfigurationError(
            f"QUEUES contains {', '.join(unknown)}, which is not a queue. List some of {', '.join(QUEUES)}, separated "
            "by commas, or leave it empty for all queues that the workers can serve."
        )
    return chosen
