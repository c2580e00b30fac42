"""Wakes the workers of a fleet through Celery and Redis.

A message says only that there may be a job in a queue. It is sent to all workers that serve the queue (Celery's
broadcast, Redis's publish and subscribe), and those that are free try to claim a job from the store, which holds the
jobs. Redis holds no state: if its data is lost, no job is lost, and a lost message delays a job only by the second
after which workers poll the store anyway.
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
        f"QUEUE_URL is set, which requires the extra `distributed` ({error}): run `pip install 'diarist[distributed]'`."
    ) from error

logger = logging.getLogger(__name__)

WAKE_TASK = "diarist.look"
"""The name of the Celery task. Machines with different versions of Diarist exchange it, so it does not change."""

TIMEOUT_S = 5.0
"""How long connecting to Redis, and each operation on the connection, may take."""

MESSAGE_LIFETIME_S = 60.0
"""A wake message that Celery receives later than this is ignored."""

STOP_S = 5.0
"""How long a thread may take to stop."""

RESTART_DELAY_S = 2.0
"""The time until the listener is started again after Celery stopped because of an error."""


def make_app(url: str) -> Celery:
    """Return the Celery application of a fleet.

    Raises:
        ConfigurationError: the URL does not name a Redis server.
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
    """Return the broadcast queue that reaches all workers that serve a queue of the store.

    Messages are not acknowledged. A missed wake message has no value, and unacknowledged messages would stay in Redis
    and prevent Celery from reconnecting to a Redis server that was restarted.
    """
    return Broadcast(f"diarist.{queue}", routing_key=queue, auto_delete=True, no_ack=True)  # type: ignore[no-untyped-call]


class CeleryNotifier:
    """A ``WorkerNotifier`` that sends messages from its own thread, so that no request waits for Redis.

    Raises:
        ConfigurationError: the URL does not name a Redis server.
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
                # Several consecutive messages for one queue have the same effect as one.
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
                # Without this declaration, Celery assumes an exchange that sends to a single listener.
                WAKE_TASK, connection=connection, queue=broadcast_queue(queue),
                declare=[broadcast_queue(queue).exchange],
                routing_key=queue, ignore_result=True, retry=False, expires=MESSAGE_LIFETIME_S,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - each layer below has its own errors, and jobs are claimed anyway
            logger.warning("Workers cannot be woken through QUEUE_URL, and poll for jobs meanwhile: %s", error)
            connection.release()


class NotificationListener:
    """Receives wake messages and calls ``wake`` in its own thread, until it is stopped.

    There can be one listener at a time in a process, because Celery has one event loop and one default application.

    Raises:
        ConfigurationError: the URL does not name a Redis server.
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
        """Wait until messages are received. Return False if that takes longer than ``timeout`` seconds."""
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
        """Run Celery until the listener is stopped. Celery reconnects by itself, but ends on unexpected errors."""
        while True:
            self._controller.start()
            if self._stopping.wait(RESTART_DELAY_S):
                return
            logger.warning("Celery stopped receiving messages from QUEUE_URL; it is started again")
            self._controller = self._new_controller()
