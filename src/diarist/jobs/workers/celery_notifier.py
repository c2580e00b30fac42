"""Wakes the workers of a fleet through Celery and Redis.

A message says only that there may be something in a queue, and goes to all workers who serve it (Celery's broadcast,
Redis's publish and subscribe): whoever is free looks into the store, where the jobs are. Nothing is kept in Redis, so
that its data may be lost without a loss of jobs, and a message that goes astray costs the second after which workers
look by themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from diarist.errors import ConfigurationError

try:
    from celery import Celery
    from celery.worker import WorkController
    from kombu.common import Broadcast
except ImportError as error:
    raise ConfigurationError(
        f"QUEUE_URL is set, which takes the extra `distributed` ({error}): run `pip install 'diarist[distributed]'`."
    ) from error

logger = logging.getLogger(__name__)

WAKE_TASK = "diarist.look"
TIMEOUT_S = 5.0
"""Of one connection to Redis, and of one thing said over it."""

MESSAGE_LIFETIME_S = 60.0
"""Between two warnings that Redis cannot be reached."""

STOP_S = 5.0

RESTART_DELAY_S = 2.0
"""Until it is listened again, after Celery has ended of a fault."""


def make_app(url: str) -> Celery:
    """The Celery application of a fleet.

    Raises:
        ConfigurationError: the URL names no Redis.
    """
    if not url.startswith(("redis://", "rediss://", "redis+socket://", "sentinel://")):
        raise ConfigurationError("QUEUE_URL must name a Redis server: redis://host:6379/0, or rediss:// with TLS.")
    app = Celery("diarist", broker=url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S, "socket_keepalive": True,
        },
    )  # fmt: skip
    return app


def broadcast_queue(queue: str) -> Any:
    """What everyone hears who serves a queue of the store.

    Nothing is acknowledged: a wake that was not heard is worth nothing, and what waits for its acknowledgement would
    stay in Redis, and break Celery's own way back to a Redis that was restarted.
    """
    return Broadcast(f"diarist.{queue}", routing_key=queue, auto_delete=True, no_ack=True)  # type: ignore[no-untyped-call]


class CeleryNotifier:
    """A ``WorkerNotifier`` that notifies from a thread of its own: nobody waits for Redis, least of all a request.

    Raises:
        ConfigurationError: the URL names no Redis.
    """

    def __init__(self, url: str) -> None:
        self._app = make_app(url)
        self._pending: SimpleQueue[str | None] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._notify_all, name="celery-notifier", daemon=True)
        self._thread.start()

    def notify(self, queue: str) -> None:
        self._pending.put(queue)

    def close(self) -> None:
        self._closing.set()
        self._pending.put(None)
        self._thread.join(STOP_S)

    def _notify_all(self) -> None:
        connection = self._app.connection_for_write()
        try:
            while (queue := self._pending.get()) is not None:
                # Two announcements of one queue in a row say the same.
                for name in dict.fromkeys((queue, *self._other_pending())):
                    if not self._closing.is_set():
                        self._send(connection, name)
        finally:
            connection.release()

    def _other_pending(self) -> list[str]:
        queues: list[str] = []
        try:
            while True:
                queue = self._pending.get_nowait()
                if queue is None:
                    self._pending.put(None)
                    return queues
                queues.append(queue)
        except Empty:
            return queues

    def _send(self, connection: Any, queue: str) -> None:
        try:
            self._app.send_task(
                # Unless the exchange is declared here too, this side takes it for one that sends to one listener alone.
                WAKE_TASK, connection=connection, queue=broadcast_queue(queue),
                declare=[broadcast_queue(queue).exchange],
                routing_key=queue, ignore_result=True, retry=False, expires=MESSAGE_LIFETIME_S,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - every layer below has errors of its own, and the work goes on anyway
            logger.warning("Workers cannot be woken over QUEUE_URL, and look by themselves meanwhile: %s", error)
            connection.release()


class NotificationListener:
    """Hears what is announced and calls ``wake``, from a thread of its own, until it is stopped.

    One at a time in a process: Celery keeps its event loop and the application of its tasks for the whole of it.

    Raises:
        ConfigurationError: the URL names no Redis.
    """

    def __init__(self, url: str, queues: Sequence[str], wake: Callable[[], None]) -> None:
        self._app = make_app(url)
        self._app.set_default()
        self._app.conf.task_queues = [broadcast_queue(queue) for queue in queues]
        self._ready = threading.Event()

        def on_wake() -> None:
            wake()

        self._app.task(on_wake, name=WAKE_TASK, ignore_result=True, shared=False, lazy=False)
        self._stopping = threading.Event()
        self._controller = self._new_controller()
        self._thread = threading.Thread(target=self._listen, name="celery-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_until_ready(self, timeout: float) -> bool:
        """Whether it hears by then."""
        return self._ready.wait(timeout)

    def stop(self) -> None:
        self._stopping.set()
        self._controller.stop()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _new_controller(self) -> Any:
        return WorkController(
            app=self._app, pool="solo", concurrency=1, without_gossip=True, without_mingle=True, without_heartbeat=True,
            task_events=False, ready_callback=lambda _: self._ready.set(), loglevel=logging.WARNING,
        )  # fmt: skip

    def _listen(self) -> None:
        """Until it is stopped. Celery mends its connection by itself; what it does not know of ends it for good."""
        while True:
            self._controller.start()
            if self._stopping.wait(RESTART_DELAY_S):
                return
            logger.warning("Wakes over QUEUE_URL were not heard any more; listening again")
            self._controller = self._new_controller()
