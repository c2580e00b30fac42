"""What wakes workers. It carries no jobs: the store does, and workers look there by themselves as well."""

from __future__ import annotations

from typing import Protocol

from diarist.jobs.workers.pool import WorkerPool


class WorkerNotifier(Protocol):
    """Tells workers that there is something to look for. Safe to call from any thread; never raises."""

    def notify(self, queue: str) -> None:
        """There may be a job in this queue of the store, or one that was running is not wanted any more."""
        ...

    def close(self) -> None:
        """Announce nothing more."""
        ...


class LocalNotifier:
    """Wakes the workers of this process."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def notify(self, queue: str) -> None:  # noqa: ARG002
        self._pool.wake()

    def close(self) -> None:
        """Nothing to do: the crew is ended by whoever started it."""
