"""All worker processes of a service. Each has its own supervisor, so a crash does not affect the others."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence

from diarist.jobs.store import JobStore
from diarist.jobs.workers.supervisor import Supervisor
from diarist.jobs.workers.worker_placement import WorkerSlot, worker_slots
from diarist.settings import Settings

logger = logging.getLogger(__name__)

# -P: a file in the working directory cannot replace a module.
COMMAND = (sys.executable, "-P", "-m", "diarist.jobs.workers.worker")


class WorkerPool:
    """Keeps a worker process running in each slot.

    Args:
        settings: set the number of workers.
        store: the job store.
        on_job_ended: called whenever a job may have ended.
        command: starts a process that implements ``diarist.jobs.workers.ipc``.
    """

    def __init__(
        self, settings: Settings, store: JobStore, on_job_ended: Callable[[], None], command: Sequence[str] = COMMAND
    ) -> None:
        self._settings = settings
        self._store = store
        self._on_job_ended = on_job_ended
        self._command = command
        self._supervisors: tuple[Supervisor, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process IDs of the workers, in order of their slots; workers that are being restarted are left out."""
        return tuple(pid for supervisor in self._supervisors if (pid := supervisor.pid) is not None)

    def start(self) -> None:
        """Determine the slots of this machine, and start a worker in each."""
        slots = worker_slots(self._settings)
        _log_slots(slots)
        self._supervisors = tuple(
            Supervisor(slot, self._store, self._on_job_ended, self.wake, self._command) for slot in slots
        )
        for supervisor in self._supervisors:
            supervisor.start()

    def wake(self) -> None:
        """Notify all workers that there may be a new or a canceled job."""
        for supervisor in self._supervisors:
            supervisor.wake()

    def drain(self, timeout: float) -> None:
        """Let all workers finish their jobs in progress for up to ``timeout`` seconds; ``stop`` ends the others."""
        until = time.monotonic() + timeout
        for supervisor in self._supervisors:
            supervisor.drain()
        for supervisor in self._supervisors:
            supervisor.join(max(until - time.monotonic(), 0.0))

    def stop(self, timeout: float = 5.0) -> None:
        """Terminate all workers, and kill those that still run after ``timeout`` seconds. Their jobs are requeued."""
        until = time.monotonic() + timeout
        for supervisor in self._supervisors:
            supervisor.terminate()
        for supervisor in self._supervisors:
            supervisor.stop(max(until - time.monotonic(), 0.0))


def _log_slots(slots: Sequence[WorkerSlot]) -> None:
    if len(slots) > 1:
        gpus = dict.fromkeys(slot.gpu for slot in slots if slot.gpu is not None)
        where = f" on GPUs {', '.join(gpus)}" if gpus else ""
        logger.info("%d workers%s with %d threads each", len(slots), where, slots[0].settings.threads)
