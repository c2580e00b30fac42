"""The supervisor of one worker: it starts the worker process, and restarts it whenever it dies or hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

from diarist.errors import ServiceError
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.database import utc_now
from diarist.jobs.model import WorkerReport
from diarist.jobs.store import JobStore
from diarist.jobs.workers.ipc import WorkerConfig
from diarist.jobs.workers.worker_placement import WorkerSlot
from diarist.jobs.workers.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The delay before the next start, by the number of crashes in a row; the last one applies to all further crashes."""

HEALTHY_AFTER_S = 60.0
"""A process that lived for this long, ended a job, or ended itself on purpose resets the number of crashes in a row."""

STARTUP_S = 60.0
"""How long a new process may take until its first message, if the lease is shorter."""

WATCH_INTERVAL_S = 1.0
"""The longest time between two checks whether the process still sends messages."""

SUSPENDED_S = 3.0
"""If more time passed between two checks, this process or the whole machine was suspended, and the worker with it."""

STOPPED_S = 1.5
"""A worker that has been silent for this long is asked whether it was stopped while it holds the store's lock."""

KILL_S = 5.0
"""How long a killed process may take to end."""

RELEASE_RETRY_S = 1.0
"""The time between two attempts to release the jobs of a dead worker."""


class Supervisor:
    """Keeps one worker process running.

    It releases what a dead worker held at once (``JobStore.release``).

    Args:
        slot: the place of the worker; its settings provide the lease and the number of attempts.
        store: the job store, for releases, and for status reports while no process can make them.
        on_job_ended: called whenever a job may have ended.
        on_released: called when another worker can claim a job of a dead one.
        command: starts a process that implements ``diarist.jobs.workers.ipc``.
    """

    def __init__(
        self,
        slot: WorkerSlot,
        store: JobStore,
        on_job_ended: Callable[[], None],
        on_released: Callable[[], None],
        command: Sequence[str],
    ) -> None:
        self._slot = slot
        self._settings = slot.settings
        self._store = store
        self._on_job_ended = on_job_ended
        self._on_released = on_released
        self._command = tuple(command)
        self._stopping = threading.Event()
        self._terminated = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None
        self._main = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._watchdog = threading.Thread(target=self._watch_for_silence, name="supervisor-watchdog", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process ID of the worker; None while no process is running."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the worker process and the threads that supervise it."""
        self._main.start()
        self._watchdog.start()

    def wake(self) -> None:
        """Notify the worker that there may be a new or a canceled job."""
        with self._lock:
            if self._process is not None:
                self._process.wake()

    def drain(self) -> None:
        """Let the worker finish the jobs in progress and exit, and do not restart it. Returns at once."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.drain()

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until the worker has ended and will not be restarted."""
        self._main.join(timeout)

    def terminate(self) -> None:
        """Tell the worker to requeue its jobs and exit, and do not restart it. Returns at once."""
        self._terminated = True
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()

    def stop(self, timeout: float) -> None:
        """Terminate the worker, and kill it after ``timeout`` seconds. Its jobs are requeued; no process remains."""
        self.terminate()
        if not self._main.is_alive():
            return
        self._main.join(timeout)
        if self._main.is_alive():
            logger.warning("The worker did not end within %.1f s and is killed", timeout)
            with self._lock:
                if self._process is not None:
                    self._process.kill()
            self._main.join(KILL_S)
        self._watchdog.join(KILL_S)

    def _supervise(self) -> None:
        try:
            self._restart_until_stopped()
        finally:
            self._ended.set()

    def _restart_until_stopped(self) -> None:
        crashes = 0
        error: str | None = None
        name = self._name_next(error)
        while not self._stopping.is_set():
            process: WorkerProcess | None = None
            try:
                process = self._spawn(name, error)
            except (OSError, RuntimeError) as spawn_error:  # RuntimeError if the system allows no more threads
                how = f"could not be started ({getattr(spawn_error, 'strerror', None) or spawn_error})"
            if process is not None:
                how = process.wait()
                with self._lock:
                    self._process = None
                process.close()
            self._release(name)
            if self._stopping.is_set():
                break
            gave_up = process is not None and process.gave_up is not None
            healthy = process is not None and (gave_up or process.ended_jobs > 0 or process.age_s > HEALTHY_AFTER_S)
            crashes = 1 if healthy else crashes + 1
            # A worker that was ready will be ready again soon. If it never became ready, its status shows an error.
            was_ready = process is not None and process.ready
            error = None if was_ready else f"The worker process {how} before it was ready. See the log for details."
            name = self._name_next(error)
            delay_s = BACKOFF_S[min(crashes, len(BACKOFF_S)) - 1]
            level = logging.INFO if gave_up else logging.ERROR
            logger.log(level, "The worker process %s; the next one starts in %.1f s", how, delay_s)
            self._count_restart()
            self._stopping.wait(delay_s)
        self._release(name)

    def _spawn(self, name: str, error: str | None) -> WorkerProcess | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            config = WorkerConfig(name, self._settings, error, self._slot.gpu)
            self._process = WorkerProcess(self._command, self._slot.environment, config, self._on_job_ended)
            on = "" if self._slot.gpu is None else f" on GPU {self._slot.gpu}"
            logger.info("Worker %s%s started as process %d", name, on, self._process.pid)
            return self._process

    def _name_next(self, error: str | None) -> str:
        """Return a name for the next process, and report a status for it, until it reports its own."""
        name = f"{socket.gethostname()}-{self._slot.number:02d}-{secrets.token_hex(4)}"
        errors = () if error is None else (error,)
        state = "loading" if error is None else "error"
        try:
            self._store.save_worker_report(WorkerReport(name, os.getpid(), state, (), errors, utc_now()))
        except ServiceError as store_error:
            logger.error("The status of the worker cannot be reported: %s", store_error)  # noqa: TRY400
        return name

    def _release(self, name: str) -> None:
        """Release what the dead process held; retry until the store can be written, because no other process does this.

        If the process was told to exit, its end does not count as a crash that the job caused.
        """
        while True:
            try:
                released = self._store.release(name, self._settings.job_attempts, service_crash=self._terminated)
            except ServiceError as error:
                logger.error("The jobs of a dead worker cannot be released: %s", error)  # noqa: TRY400
                if self._stopping.wait(RELEASE_RETRY_S):
                    return
            else:
                for job_id in released:
                    logger.warning("Job of a dead worker released", extra={"job_id": job_id})
                self._on_job_ended()
                if released:
                    self._on_released()
                return

    def _count_restart(self) -> None:
        with contextlib.suppress(ServiceError):
            self._store.increment_metric(metrics_storage.WORKER_RESTARTS)

    def _watch_for_silence(self) -> None:
        lease_s = self._settings.job_lease_s
        interval_s = min(WATCH_INTERVAL_S, lease_s / 4)
        checked_at = time.monotonic()
        while not self._ended.wait(interval_s):
            elapsed_s = time.monotonic() - checked_at
            checked_at = time.monotonic()
            with self._lock:
                process = self._process
            if process is None:
                continue
            if elapsed_s > max(SUSPENDED_S, 2 * interval_s):
                process.reset_silence()
                continue
            silent_s = process.silent_s
            if silent_s > (lease_s if process.has_responded else max(lease_s, STARTUP_S)):
                logger.error("The worker (process %d) hangs: no heartbeat for %.1f s; killed", process.pid, silent_s)
                process.kill_unresponsive()
            elif silent_s > STOPPED_S and process.is_stopped and self._write_lock_is_held():
                # Until it continues, nobody can write: no upload is accepted, and no lease renewed.
                logger.error(
                    "The worker (process %d) was stopped while it had locked the job store; killed", process.pid
                )
                process.kill_unresponsive()

    def _write_lock_is_held(self) -> bool:
        try:
            return self._store.write_lock_is_held()
        except ServiceError:
            return False
