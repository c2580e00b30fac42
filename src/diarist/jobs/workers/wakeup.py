"""Notifications that wake workers. They contain no jobs: workers claim jobs from the store, which they also poll."""

from __future__ import annotations

from typing import Protocol

from diarist.jobs.workers.pool import WorkerPool


class WorkerNotifier(Protocol):
    """Wakes workers. It can be called from any thread, and never raises."""

    def notify(self, queue: str) -> None:
        """Wake the workers of this queue: it may hold a new job, or a running job was canceled."""
        ...

    def close(self) -> None:
        """Stop sending notifications."""
        ...


class LocalNotifier:
    """Wakes the workers of this process."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def notify(self, queue: str) -> None:  # noqa: ARG002
        self._pool.wake()

    def close(self) -> None:
        """Do nothing: the owner of the pool stops it."""
