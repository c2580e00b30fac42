"""Threads of the service that run errands: each errand in one of its own, under a lease that is renewed meanwhile."""

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
"""Errands of each kind that a process runs at once: of one kind they never wait for another's."""

SHARE = 0.75
"""How many of these threads one owner may have, so that servers which hang hold up nobody else's errands."""

LEASE_S: Seconds = 30.0
POLL_S: Seconds = 1.0
"""Longest time between two looks for errands: workers make some, and other machines."""

MAX_CRASHES = 25
"""An errand during which the service died so often is given up: it may be what kills it, and may not."""


class Handler(Protocol):
    """What is done for errands of one kind. Ends each of them in the ``OutboxStore``: done, or again."""

    def run(self, task: OutboxTask, check: Callable[[], None]) -> None:
        """Do it. ``check`` is to be called about twice a second, and what it raises to be passed on at once."""

    def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
        """``run`` has raised something that it did not expect: try again later, or give up, as is certain if ``last``.

        Either way with words for the user.
        """


@dataclass(slots=True)
class _Hold:
    """One errand in hand."""

    task: OutboxTask
    lost: threading.Event = field(default_factory=threading.Event)


class OutboxRunner:
    """Claims errands that are due and has them handled, until it is stopped.

    Args:
        errands: where they are.
        handlers: by kind of errand; others are left alone.
        threads: how many of each kind are run at once.
        lease_s: after how long without a sign of life another process takes an errand over.
        poll_s: longest time between two looks.
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
        self._news = True
        self._stopping = False
        self._holds: dict[threading.Thread, _Hold] = {}
        self._renewed_at = 0.0
        self._store_fails = False
        self._main = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._main.start()

    def wake(self) -> None:
        """There may be something to do."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def drop(self, job_id: str, timeout: Seconds = 1.0) -> None:
        """Stop what is under way here for a job that is gone, and wait for the end of it, so long at the most."""
        until = time.monotonic() + timeout
        with self._changed:
            found = {thread: hold for thread, hold in self._holds.items() if hold.task.job_id == job_id}
        for hold in found.values():
            hold.lost.set()
        for thread in found:
            thread.join(max(until - time.monotonic(), 0.0))

    def stop(self, timeout: float = 5.0) -> None:
        """End all threads, within about ``timeout`` seconds; another runner may take at once what they had in hand."""
        until = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._main.is_alive():
            self._main.join(timeout)
        with self._changed:
            threads = tuple(self._holds)
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.0))
        late = [hold.task for thread, hold in self._holds.copy().items() if thread.is_alive()]
        if late:
            logger.warning(
                "%d errands did not stop within %.1f s; they are taken up again when their leases run out",
                len(late), timeout,
            )  # fmt: skip

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                self._news = False
            try:
                self._renew_when_due()
                self._begin_what_is_due()
                self._store_fails = False
            except ServiceError as error:
                if not self._store_fails:
                    logger.warning("No errands can be run, it is tried again all the time: %s", error)
                self._store_fails = True
            except Exception:
                # This thread is all that keeps errands going.
                logger.exception("Looking for errands failed in a way that nobody thought of")
            with self._changed:
                self._changed.wait_for(lambda: self._news or self._stopping, timeout=self._poll_s)

    def _begin_what_is_due(self) -> None:
        kinds = self._free_kinds()
        if not kinds or not self._outbox.any_due(kinds):
            return
        for kind in kinds:
            while self._room_for(kind) > 0:
                runner = f"{self._name}:{secrets.token_hex(8)}"
                task = self._outbox.claim(runner, self._lease_s, (kind,), self._with_their_share(kind))
                if task is None:
                    break
                self._begin(task)

    def _free_kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in self._handlers if self._room_for(kind) > 0)

    def _room_for(self, kind: str) -> int:
        with self._changed:
            busy = sum(hold.task.kind == kind for hold in self._holds.values())
        return 0 if self._stopping else self._threads[kind] - busy

    def _with_their_share(self, kind: str) -> Collection[str]:
        most = max(int(self._threads[kind] * SHARE), 1)
        with self._changed:
            counts = Counter(hold.task.owner for hold in self._holds.values() if hold.task.kind == kind)
        return tuple(owner for owner, count in counts.items() if count >= most)

    def _begin(self, task: OutboxTask) -> None:
        hold = _Hold(task)
        thread = threading.Thread(target=self._handle, args=(hold,), name=f"errand-{task.kind}", daemon=True)
        with self._changed:
            self._holds[thread] = hold
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads: its lease runs out
            with self._changed:
                del self._holds[thread]
            raise

    def _handle(self, hold: _Hold) -> None:
        task = hold.task
        try:
            with logs.about(job=task.job_id):
                self._attempt(hold)
        except Exception as error:  # noqa: BLE001 - nobody above would hear of it
            if isinstance(error, Cancelled) and (self._stopping or hold.lost.is_set()):
                with suppress(ServiceError):  # its lease runs out then
                    self._outbox.requeue(task)
            else:
                self._finalize(task, error)
        finally:
            with self._changed:
                del self._holds[threading.current_thread()]
                self._news = True
                self._changed.notify_all()

    def _attempt(self, hold: _Hold) -> None:
        def check() -> None:
            if self._stopping:
                raise Cancelled("The service is stopping.")
            if hold.lost.is_set():
                raise Cancelled("The errand is not ours any more.")

        task = hold.task
        handler = self._handlers[task.kind]
        if task.worker_crashes >= MAX_CRASHES:
            told = JobFailed(
                f"The service died {task.worker_crashes} times in the middle of it, so it is not tried again."
            )
            handler.failed(task, told, last=True)
            return
        check()
        handler.run(task, check)

    def _finalize(self, task: OutboxTask, error: Exception) -> None:
        if isinstance(error, ServiceError):
            logger.warning("An errand (%s) has to wait: %s", task.kind, error, extra={"job_id": task.job_id})
        else:
            logger.error("An errand (%s) failed", task.kind, exc_info=error, extra={"job_id": task.job_id})
        try:
            self._handlers[task.kind].failed(task, error)
        except ServiceError as failure:
            logger.warning(
                "How an errand ended cannot be kept, so it is tried again later: %s", failure,
                extra={"job_id": task.job_id},
            )  # fmt: skip
        except Exception:
            logger.exception("How an errand ended cannot be kept", extra={"job_id": task.job_id})

    def _renew_when_due(self) -> None:
        now = time.monotonic()
        if now - self._renewed_at < self._lease_s / 4:
            return
        with self._changed:
            holds = tuple(self._holds.values())
        for hold in holds:
            if not hold.lost.is_set() and not self._outbox.renew(hold.task, self._lease_s):
                hold.lost.set()
        self._renewed_at = now
