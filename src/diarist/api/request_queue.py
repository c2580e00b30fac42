"""The queue of requests that wait for a thread."""

from __future__ import annotations

from typing import Any

from waitress.task import ThreadedTaskDispatcher

URGENT_PATHS = frozenset({"/status", "/health/live", "/health/ready"})
"""The paths that orchestrators poll: they restart a service that does not answer them in time."""


class RequestQueue(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Threads that handle the requests of channels in order of arrival, but health checks before all others."""

    def add_task(self, task: Any) -> None:
        if not task.urgent:
            super().add_task(task)
            return
        with self.lock:
            self.queue.appendleft(task)
            self.queue_cv.notify()
