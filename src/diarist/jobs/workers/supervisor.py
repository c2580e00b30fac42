"""Starts the worker process of one place, wakes it, and starts another one whenever it dies or hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from diarist.errors import ServiceError
from diarist.jobs.db import metrics_storage
from diarist.jobs.db.database import utc_now
from diarist.jobs.model import WorkerReport
from diarist.jobs.store import JobStore
from diarist.jobs.workers import ipc
from diarist.jobs.workers.ipc import WorkerConfig
from diarist.jobs.workers.placement import WorkerSlot
from diarist.observability import logs

logger = logging.getLogger(__name__)

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Until the next start, by the number of deaths in a row; the last one for all that follow."""

LONG_LIFE_S = 60.0
"""A worker that lived for this long, or ended a job, starts the count of deaths anew."""

STARTUP_S = 60.0
"""How long a new process may take until its first sign of life, where the lease is shorter."""

WATCH_S = 1.0
"""Longest time between two looks whether the worker gives signs of life."""

AWAY_S = 3.0
"""Where there was more between two looks, this process was stopped, or the machine was, and the worker with it."""

KILL_S = 5.0
"""How long a killed process may take to be gone."""

LOG_LINE_CHARS = 2**20
"""Longer lines of a worker's stderr are cut into several."""


class Supervisor:
    """Keeps one worker process running.

    What the worker held when it died is given back at once (``JobStore.release``). Its log lines, which come over its
    stderr, become this process's.

    Args:
        place: where the worker works; its settings give the lease and the number of attempts.
        store: the job store, for releases and for a report while no worker can make one.
        notify: called whenever a job may have ended.
        offer: called when a job of a dead worker can be taken up by another.
        command: starts a worker that speaks ``diarist.jobs.workers.ipc``.
    """

    def __init__(
        self,
        slot: WorkerSlot,
        store: JobStore,
        notify: Callable[[], None],
        offer: Callable[[], None],
        command: Sequence[str],
    ) -> None:
        self._slot = slot
        self._settings = slot.settings
        self._store = store
        self._notify = notify
        self._offer = offer
        self._command = tuple(command)
        self._stopping = threading.Event()
        self._dismissed = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._process: _WorkerProcess | None = None
        self._main = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._watch = threading.Thread(target=self._watch_for_silence, name="supervisor-watch", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the worker process; None between two of them."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._main.start()
        self._watch.start()

    def wake(self) -> None:
        """Tell the worker that there may be a job, or one fewer."""
        with self._lock:
            if self._process is not None:
                self._process.wake()

    def drain(self) -> None:
        """Let the worker finish what it has in hand and begin nothing else, and start no other. Returns at once."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.drain()

    def join(self, timeout: float) -> None:
        """Wait until its worker has ended and none follows."""
        self._main.join(timeout)

    def dismiss(self) -> None:
        """Tell the worker to end, and start no other. Returns at once."""
        self._dismissed = True
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()

    def stop(self, timeout: float) -> None:
        """End the worker, kindly for ``timeout`` seconds; what it works on is queued again. No process is left."""
        self.dismiss()
        if not self._main.is_alive():
            return
        self._main.join(timeout)
        if self._main.is_alive():
            logger.warning("The worker did not end within %.1f s and is killed", timeout)
            with self._lock:
                if self._process is not None:
                    self._process.kill()
            self._main.join(KILL_S)
        self._watch.join(KILL_S)

    def _supervise(self) -> None:
        try:
            self._keep_one_running()
        finally:
            self._ended.set()

    def _keep_one_running(self) -> None:
        worker_crashes = 0
        fault: str | None = None
        name = self._name_next(fault)
        while not self._stopping.is_set():
            process: _WorkerProcess | None = None
            try:
                process = self._spawn(name, fault)
            except (OSError, RuntimeError) as error:  # the latter where the system gives no more threads
                how = f"could not be started ({getattr(error, 'strerror', None) or error})"
            if process is not None:
                how = process.wait()
                with self._lock:
                    self._process = None
                process.close()
            self._release(name)
            if self._stopping.is_set():
                break
            lived = process is not None and (process.ended_jobs > 0 or process.age_s > LONG_LIFE_S)
            worker_crashes = 1 if lived else worker_crashes + 1
            # One that was ready is missed for a moment only; one that never got so is a fault to be shown.
            was_ready = process is not None and process.ready
            fault = None if was_ready else f"The worker process {how} before it was ready. The log says more."
            name = self._name_next(fault)
            delay_s = BACKOFF_S[min(worker_crashes, len(BACKOFF_S)) - 1]
            logger.error("The worker process %s; the next one starts in %.1f s", how, delay_s)
            self._count_restart()
            self._stopping.wait(delay_s)
        self._release(name)

    def _spawn(self, name: str, fault: str | None) -> _WorkerProcess | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            config = WorkerConfig(name, self._settings, fault, self._slot.gpu)
            self._process = _WorkerProcess(self._command, self._slot.environment, config, self._notify)
            on = "" if self._slot.gpu is None else f" on GPU {self._slot.gpu}"
            logger.info("Worker %s%s started as process %d", name, on, self._process.pid)
            return self._process

    def _name_next(self, fault: str | None) -> str:
        """A name for the next worker, with a report in that name until it speaks for itself."""
        name = f"{socket.gethostname()}-{self._slot.number:02d}-{secrets.token_hex(4)}"
        errors = () if fault is None else (fault,)
        try:
            self._store.save_worker_report(
                WorkerReport(name, os.getpid(), "loading" if fault is None else "error", (), errors, utc_now())
            )
        except ServiceError as error:
            logger.error("The state of the worker cannot be reported: %s", error)  # noqa: TRY400
        return name

    def _release(self, name: str) -> None:
        """Give back what the dead worker held; again until the store can be written, for nobody else will.

        Where it was told to end, that it did so is not the job's doing.
        """
        while True:
            try:
                released = self._store.release(name, self._settings.job_attempts, service_crash=self._dismissed)
            except ServiceError as error:
                logger.error("The jobs of a dead worker cannot be given back: %s", error)  # noqa: TRY400
                if self._stopping.wait(1.0):
                    return
            else:
                for job_id in released:
                    logger.warning("Job of a dead worker given back", extra={"job_id": job_id})
                self._notify()
                if released:
                    self._offer()
                return

    def _count_restart(self) -> None:
        with contextlib.suppress(ServiceError):
            self._store.increment_metric(metrics_storage.WORKER_RESTARTS)

    def _watch_for_silence(self) -> None:
        lease_s = self._settings.job_lease_s
        every_s = min(WATCH_S, lease_s / 4)
        looked_at = time.monotonic()
        while not self._ended.wait(every_s):
            away_s = time.monotonic() - looked_at
            looked_at = time.monotonic()
            with self._lock:
                process = self._process
            if process is None:
                continue
            if away_s > max(AWAY_S, 2 * every_s):
                process.forgive()
                continue
            silent_s = process.silent_s
            if silent_s > (lease_s if process.spoke else max(lease_s, STARTUP_S)):
                logger.error("The worker (process %d) hangs: no sign of life for %.1f s; killed", process.pid, silent_s)
                process.hung = True
                process.kill()


class _WorkerProcess:
    """One worker process, leader of its own process group, with a thread each for its events and its log."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None,
        config: WorkerConfig,
        notify: Callable[[], None],
    ) -> None:
        self._notify = notify
        self._started = self._heard = time.monotonic()
        self.spoke = False
        self.ready = False
        self.hung = False
        self.ended_jobs = 0
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
            env=environment,
        )  # fmt: skip
        self.pid = self._process.pid
        self._down, events, log = _pipes(self._process)
        self._readers = (
            threading.Thread(target=self._read_events, args=(events,), name="worker-events", daemon=True),
            threading.Thread(target=_relay_log, args=(log, config.worker), name="worker-log", daemon=True),
        )
        try:
            for reader in self._readers:
                reader.start()
        except RuntimeError:
            self.kill()
            self._process.wait()
            for reader, pipe in zip(self._readers, (events, log), strict=True):
                if reader.ident is None:
                    pipe.close()
            self._down.close()
            raise
        with contextlib.suppress(OSError):  # dead already: wait() says how
            self._down.write(config.dump())
            self._down.flush()
            os.set_blocking(self._down.fileno(), False)

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started

    def forgive(self) -> None:
        """Wait for its next sign of life anew: all was at a standstill, this process too."""
        self._heard = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Since the last sign of life."""
        return time.monotonic() - self._heard

    def drain(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._down.fileno(), ipc.DRAIN.encode() + b"\n")

    def wake(self) -> None:
        # A full pipe holds wakes enough; a broken one has nobody behind it.
        with contextlib.suppress(OSError):
            os.write(self._down.fileno(), b"\n")

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, with the processes that it started, unless it is gone already."""
        if self._process.returncode is None:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> str:
        """Wait for its end; says how it ended."""
        code = self._process.wait()
        # Whatever it started goes with it. While the group has members, no other process can have its number.
        self._kill_group()
        if self.hung:
            return "gave no sign of life and was killed"
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by {_signal_name(-code)}"

    def close(self) -> None:
        for reader in self._readers:
            reader.join(KILL_S)
        with contextlib.suppress(OSError):
            self._down.close()

    def _read_events(self, events: IO[bytes]) -> None:
        with events:
            for event in events:
                self._heard = time.monotonic()
                self.spoke = True
                match event.decode(errors="replace").split():
                    case [ipc.READY]:
                        self.ready = True
                    case [ipc.JOB_ENDED, _]:
                        self.ended_jobs += 1
                        self._notify()


def _relay_log(log: IO[bytes], worker: str) -> None:
    with log:
        while text := log.readline(LOG_LINE_CHARS):
            logs.relay(text.decode(errors="replace"), worker)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdin, process.stdout, process.stderr


def _signal_name(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL (perhaps for want of memory)"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
