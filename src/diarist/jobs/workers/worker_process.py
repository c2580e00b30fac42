"""One worker process as its supervisor sees it: its messages, its log, and its end."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from diarist.jobs.workers import ipc
from diarist.jobs.workers.ipc import WorkerConfig
from diarist.jobs.workers.message_sender import MessageSender
from diarist.observability import logs
from diarist.system.process_tree import describe_end, group_options, is_suspended, kill_tree, request_exit

LOG_LINE_CHARS = 2**20
"""Longer lines of a worker's stderr are split."""

JOIN_S = 5.0
"""How long the threads that read from an ended process, or write to it, may take to finish."""

GIVE_UP_REASONS = {
    ipc.LEASE_LOST: "the work on a job that was canceled, deleted or taken over did not stop",
    ipc.SHUTDOWN: "it was asked to exit and its work did not stop",
}
"""Why a worker process ends itself, by the reason in its message."""


class WorkerProcess:
    """A running worker process, which leads its own process group where there are such groups.

    One thread sends messages to it, another one reads its messages, and a third one relays its log lines to the log of
    this process.

    Args:
        command: starts a process that implements ``diarist.jobs.workers.ipc``.
        environment: the environment of the process.
        config: sent to the process first.
        on_job_ended: called whenever the work on a job has ended.

    Raises:
        OSError: the process could not be started.
        RuntimeError: the system did not allow another thread; the process has been killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        config: WorkerConfig,
        on_job_ended: Callable[[], None],
    ) -> None:
        self._on_job_ended = on_job_ended
        self._started_at = self._last_message_at = time.monotonic()
        self.has_responded = False
        """Whether it has sent any message."""

        self.ready = False
        self.gave_up: str | None = None
        """Why it ends itself, as the end of a sentence; None if it does not."""

        self.ended_jobs = 0
        self._unresponsive = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, **group_options(),
        )  # fmt: skip
        self.pid = self._process.pid
        stdin, stdout, stderr = _pipes(self._process)
        self._sender = MessageSender(stdin)
        self._readers = (
            threading.Thread(target=self._read_messages, args=(stdout,), name="worker-messages", daemon=True),
            threading.Thread(target=_relay_log, args=(stderr, config.worker), name="worker-log", daemon=True),
        )
        try:
            for reader in self._readers:
                reader.start()
            self._sender.start()
        except RuntimeError:
            self.kill()
            self._process.wait()
            for reader, pipe in zip(self._readers, (stdout, stderr), strict=True):
                if reader.ident is None:
                    pipe.close()
            self._sender.close(JOIN_S)
            raise
        self._sender.send(config.dump())  # if it has exited already, wait() returns how

    @property
    def age_s(self) -> float:
        """The time since the process was started."""
        return time.monotonic() - self._started_at

    @property
    def silent_s(self) -> float:
        """The time since its last message."""
        return time.monotonic() - self._last_message_at

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped by a signal or a debugger."""
        return is_suspended(self.pid)

    def reset_silence(self) -> None:
        """Restart the measurement of ``silent_s``, because this process or the whole machine was suspended."""
        self._last_message_at = time.monotonic()

    def wake(self) -> None:
        """Notify it that there may be a new or a canceled job."""
        self._sender.send(b"\n")

    def drain(self) -> None:
        """Tell it to finish the jobs in progress and exit."""
        self._sender.send(ipc.DRAIN.encode() + b"\n")

    def terminate(self) -> None:
        """Tell it to requeue its jobs and exit: by SIGTERM, or else by a message."""
        if not request_exit(self._process):
            self._sender.send(ipc.EXIT.encode() + b"\n")

    def kill(self) -> None:
        """Kill it at once, together with the processes that it started, unless it has exited already."""
        if self._process.returncode is None:
            kill_tree(self._process)

    def kill_unresponsive(self) -> None:
        """Kill it because it no longer sends messages; the result of ``wait`` then contains this reason."""
        self._unresponsive = True
        self.kill()

    def wait(self) -> str:
        """Wait for its end, and return how it ended as the predicate of a sentence about "the worker process"."""
        code = self._process.wait()
        kill_tree(self._process)  # the processes that it started must end too
        self._readers[0].join(JOIN_S)  # its last message may say why it ended
        if self.gave_up is not None:
            return f"ended itself, because {self.gave_up}"
        if self._unresponsive:
            return "sent no heartbeat and was killed"
        return describe_end(code)

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        for reader in self._readers:
            reader.join(JOIN_S)
        self._sender.close(JOIN_S)

    def _read_messages(self, stdout: IO[bytes]) -> None:
        with stdout:
            for message in stdout:
                self._last_message_at = time.monotonic()
                self.has_responded = True
                match message.decode(errors="replace").split():
                    case [ipc.READY]:
                        self.ready = True
                    case [ipc.GIVES_UP, reason]:
                        self.gave_up = GIVE_UP_REASONS.get(reason, reason)
                    case [ipc.JOB_ENDED, _]:
                        self.ended_jobs += 1
                        self._on_job_ended()


def _relay_log(stderr: IO[bytes], worker: str) -> None:
    with stderr:
        while line := stderr.readline(LOG_LINE_CHARS):
            logs.relay(line.decode(errors="replace"), worker)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdin, process.stdout, process.stderr
