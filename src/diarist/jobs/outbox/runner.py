"""Run the tasks of the outbox: each in its own thread, under a lease that is renewed while it runs."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import getpid
from typing import Protocol

from diarist.errors import Cancelled, JobFailed, ServiceError
from diarist.jobs.db.outbox import FETCH, WEBHOOK, OutboxStore, OutboxTask
from diarist.observability import logs
from diarist.types import Seconds

logger = logging.getLogger(__name__)

THREADS = {FETCH: 4, WEBHOOK: 8}
"""The number of tasks of each kind that a process runs at once; the kinds never wait for each other."""

MAX_OWNER_SHARE = 0.75
"""The share of these threads that one owner may use, so that slow servers do not delay the tasks of others."""

LEASE_S: Seconds = 30.0
POLL_S: Seconds = 1.0
"""The longest time between two polls for tasks, which workers and other machines create too."""

MAX_CRASHES = 25
"""After this many crashes of the service during a task, the task fails: it may be what causes them."""


class Handler(Protocol):
    """Runs the tasks of one kind, and marks each of them in the ``OutboxStore`` as done or to be retried."""

    def run(self, task: OutboxTask, check: Callable[[], None]) -> None:
        """Run a task. Call ``check`` about twice a second, and let exceptions that it raises propagate at once."""

    def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
        """Handle an exception of ``run``: retry the task later, or fail it, which is certain if ``last``.

        Either way, store a message for the user.
        """


@dataclass(slots=True)
class _RunningTask:
    """A task that this process runs."""

    task: OutboxTask
    canceled: threading.Event = field(default_factory=threading.Event)


class OutboxRunner:
    """Claims tasks that are due, and passes them to their handlers, until it is stopped.

    Args:
        outbox: stores the tasks.
        handlers: the handler of each kind of task; tasks of other kinds are ignored.
        threads: the number of tasks of each kind that run at once.
        lease_s: the time after which another process takes over a task whose lease is not renewed.
        poll_s: the longest time between two polls.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        handlers: Mapping[str, Handler],
        threads: Mapping[str, int] = THREADS,
        lease_s: Seconds = LEASE_S,
        poll_s: Seconds = POLL_S,
    ) -> None:
        self._outbox = outbox
        self._handlers = handlers
        self._threads = threads
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._name = f"{socket.gethostname()[:64]}:{getpid()}"
        self._changed = threading.Condition()
        self._work_available = True
        self._stopping = False
        self._running: dict[threading.Thread, _RunningTask] = {}
        self._renewed_at = 0.0
        self._store_failing = False
        self._main = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._main.start()

    def wake(self) -> None:
        """Poll for tasks now."""
        with self._changed:
            self._work_available = True
            self._changed.notify_all()

    def cancel(self, job_id: str, timeout: Seconds = 1.0) -> None:
        """Cancel the tasks of a deleted job that run here, and wait at most ``timeout`` seconds for them to end."""
        deadline = time.monotonic() + timeout
        with self._changed:
            found = {thread: running for thread, running in self._running.items() if running.task.job_id == job_id}
        for running in found.values():
            running.canceled.set()
        for thread in found:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def stop(self, timeout: float = 5.0) -> None:
        """End all threads, within about ``timeout`` seconds; other runners can claim their tasks at once."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._main.is_alive():
            self._main.join(timeout)
        with self._changed:
            threads = tuple(self._running)
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        unfinished = [running.task for thread, running in self._running.copy().items() if thread.is_alive()]
        if unfinished:
            logger.warning(
                "%d tasks did not stop within %.1f s; they are run again when their leases expire",
                len(unfinished), timeout,
            )  # fmt: skip

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                self._work_available = False
            try:
                self._renew_when_due()
                self._start_due_tasks()
                self._store_failing = False
            except ServiceError as error:
                if not self._store_failing:
                    logger.warning("Tasks of the outbox cannot be run; polling continues: %s", error)
                self._store_failing = True
            except Exception:
                # No other thread starts tasks.
                logger.exception("Polling for tasks of the outbox failed unexpectedly")
            with self._changed:
                self._changed.wait_for(lambda: self._work_available or self._stopping, timeout=self._poll_s)

    def _start_due_tasks(self) -> None:
        kinds = self._kinds_with_free_threads()
        if not kinds or not self._outbox.any_due(kinds):
            return
        for kind in kinds:
            while self._free_threads(kind) > 0:
                runner = f"{self._name}:{secrets.token_hex(8)}"
                task = self._outbox.claim(runner, self._lease_s, (kind,), self._owners_at_limit(kind))
                if task is None:
                    break
                self._start(task)

    def _kinds_with_free_threads(self) -> tuple[str, ...]:
        return tuple(kind for kind in self._handlers if self._free_threads(kind) > 0)

    def _free_threads(self, kind: str) -> int:
        with self._changed:
            busy = sum(running.task.kind == kind for running in self._running.values())
        return 0 if self._stopping else self._threads[kind] - busy

    def _owners_at_limit(self, kind: str) -> Collection[str]:
        limit = max(int(self._threads[kind] * MAX_OWNER_SHARE), 1)
        with self._changed:
            counts = Counter(running.task.owner for running in self._running.values() if running.task.kind == kind)
        return tuple(owner for owner, count in counts.items() if count >= limit)

    def _start(self, task: OutboxTask) -> None:
        running = _RunningTask(task)
        thread = threading.Thread(target=self._handle, args=(running,), name=f"outbox-{task.kind}", daemon=True)
        with self._changed:
            # Started under the lock: whoever cancels the task joins its thread.
            thread.start()
            self._running[thread] = running

    def _handle(self, running: _RunningTask) -> None:
        task = running.task
        try:
            with logs.log_context(job=task.job_id):
                self._attempt(running)
        except Exception as error:  # noqa: BLE001 - this is the top of the thread
            if isinstance(error, Cancelled) and (self._stopping or running.canceled.is_set()):
                with suppress(ServiceError):  # otherwise the lease expires
                    self._outbox.requeue(task)
            else:
                self._handle_error(task, error)
        finally:
            with self._changed:
                del self._running[threading.current_thread()]
                self._work_available = True
                self._changed.notify_all()

    def _attempt(self, running: _RunningTask) -> None:
        def check() -> None:
            if self._stopping:
                raise Cancelled("The service is stopping.")
            if running.canceled.is_set():
                raise Cancelled("The task was canceled, or another process has it.")

        task = running.task
        handler = self._handlers[task.kind]
        if task.worker_crashes >= MAX_CRASHES:
            error = JobFailed(
                f"The service crashed {task.worker_crashes} times while it ran this task, so it is not retried."
            )
            handler.failed(task, error, last=True)
            return
        check()
        handler.run(task, check)

    def _handle_error(self, task: OutboxTask, error: Exception) -> None:
        if isinstance(error, ServiceError):
            logger.warning("A task of the outbox (%s) has to wait: %s", task.kind, error, extra={"job_id": task.job_id})
        else:
            logger.error("A task of the outbox (%s) failed", task.kind, exc_info=error, extra={"job_id": task.job_id})
        try:
            self._handlers[task.kind].failed(task, error)
        except ServiceError as failed_update:
            logger.warning(
                "The end of a task cannot be stored, so the task is retried later: %s", failed_update,
                extra={"job_id": task.job_id},
            )  # fmt: skip
        except Exception:
            logger.exception("The end of a task cannot be stored", extra={"job_id": task.job_id})

    def _renew_when_due(self) -> None:
        now = time.monotonic()
        if now - self._renewed_at < self._lease_s / 4:
            return
        with self._changed:
            running_tasks = tuple(self._running.values())
        for running in running_tasks:
            if not running.canceled.is_set() and not self._outbox.renew(running.task, self._lease_s):
                running.canceled.set()
        self._renewed_at = now
