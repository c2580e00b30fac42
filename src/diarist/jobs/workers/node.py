"""The workers of one machine of a fleet: woken by the queue, drained when they are told to leave."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from diarist import scratch
from diarist.errors import ConfigurationError
from diarist.jobs.db.job_store import open_store
from diarist.jobs.media.opening import open_media
from diarist.jobs.model import QUEUES
from diarist.jobs.retention import Sweeper
from diarist.jobs.workers.pool import COMMAND, WorkerPool
from diarist.settings import Settings
from diarist.signals import stopped_by_signals

logger = logging.getLogger(__name__)

READY_S = 10.0
"""How long the queue may take to be reached before the log says that workers look by themselves meanwhile."""


def run_workers(settings: Settings, command: Sequence[str] = COMMAND) -> None:
    """Work until SIGTERM or Ctrl-C; then finish what is in hand, for DRAIN_S, and give back what is not done by then.

    Raises:
        ConfigurationError: QUEUE_URL is not set, or a setting cannot be used.
        StoreUnavailable: the job store cannot be used.
    """
    if not settings.distributed:
        raise ConfigurationError(
            "QUEUE_URL is not set, so the service starts its workers itself: run `diarist serve`. For a fleet set "
            "QUEUE_URL and DATABASE_URL, and MEDIA_URL to a place that all machines reach."
        )
    from diarist.jobs.workers.celery_notifier import NotificationListener

    # Celery tells at INFO of each thing that it hears; at WARNING of a connection that is lost.
    for name in ("celery", "kombu", "amqp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    scratch.prepare_temp_dir(settings.temp_dir)
    stop = threading.Event()
    with ExitStack() as stack:
        store = open_store(settings)
        stack.callback(store.close)
        pool = WorkerPool(settings, store, lambda: None, command)
        listener = NotificationListener(settings.queue_url, listened_to(settings), pool.wake)
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
        if not listener.wait_until_ready(READY_S) and not stop.is_set():
            logger.warning("QUEUE_URL does not answer yet: workers look for jobs by themselves until it does")
        logger.info("Working on %s: queues %s", socket.gethostname(), settings.queues or "by what the workers can do")
        stop.wait()
        logger.info("Leaving: what is in hand has %.0f s to be finished", settings.drain_s)
        pool.drain(settings.drain_s)
        pool.stop()  # before all else: whoever runs this may kill it soon after that time
    logger.info("Left")


def listened_to(settings: Settings) -> tuple[str, ...]:
    """The queues of which the machine wants to hear: those of QUEUES, or all, since workers know theirs only later.

    Raises:
        ConfigurationError: QUEUES has one that no job can be in.
    """
    if not settings.queues:
        return QUEUES
    named = tuple(dict.fromkeys(settings.queues.split(",")))
    if unknown := [name for name in named if name not in QUEUES]:
        raise ConfigurationError(
            f"QUEUES has {', '.join(unknown)}, and no job is ever in such a queue. Take some of {', '.join(QUEUES)}, "
            "with commas between them, or leave it empty for whatever the workers can do."
        )
    return named
