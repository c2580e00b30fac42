"""The protocol between the supervisor and its worker process: two pipes, with one message per line.

=============  =====================  ===========================================================================
Direction      Line                   Meaning
=============  =====================  ===========================================================================
to the worker  a JSON object          The configuration (``WorkerConfig``). It is the first line and is sent once.
to the worker  an empty line          Wake up: there may be a new job, or a running job may have been canceled.
to the worker  ``drain``              Finish the jobs in progress, claim no other job, and exit.
to the worker  ``exit``               Requeue the jobs in progress, and exit now.
to the worker  end of file            The supervisor is gone: exit now.
from it        ``alive``              The worker is healthy. It is sent at least every half second.
from it        ``ready``              The engine has been loaded.
from it        ``job-ended <id>``     The work on this job has ended, in whatever way.
from it        ``gives-up <reason>``  The process ends itself, because its work does not stop: ``lease-lost`` (its job
                                      was canceled, deleted or taken over) or ``shutdown`` (it was asked to exit).
=============  =====================  ===========================================================================

Lines to the worker go to its stdin, and lines from it come from its stdout. SIGTERM asks the worker to exit, like
``exit``, which the supervisor sends on systems without such a signal. Its stderr carries its log, as
``diarist.observability.logs`` describes.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from diarist.settings import Settings, load_settings
from diarist.system.console_signals import EXIT_SIGNALS, call_on_signals

ALIVE = "alive"
READY = "ready"
JOB_ENDED = "job-ended"
GIVES_UP = "gives-up"
LEASE_LOST = "lease-lost"
SHUTDOWN = "shutdown"
DRAIN = "drain"
EXIT = "exit"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The configuration that a worker process receives when it starts."""

    worker: str
    """The name of this process; no other process ever gets the same name."""

    settings: Settings
    error: str | None = None
    """Why earlier processes of this worker failed; the worker reports it until it is ready."""

    gpu: str | None = None
    """The only GPU of this worker, as it is named outside of the process; None if it has no GPU of its own."""

    def dump(self) -> bytes:
        """Return one line of JSON, including the line break. It has no secret that only the service needs."""
        settings = self.settings.model_dump(mode="json") | {"api_key": "", "webhook_secret": ""}
        fields = {"worker": self.worker, "settings": settings, "error": self.error, "gpu": self.gpu}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def load(cls, line: bytes) -> WorkerConfig:
        """Return the configuration that ``dump`` wrote.

        Raises:
            ValueError: the line is not a configuration.
        """
        fields = json.loads(line)
        return cls(fields["worker"], load_settings(**fields["settings"]), fields["error"], fields["gpu"])


class WorkerChannel:
    """The worker's end of the protocol.

    It takes over the process's stdin and stdout, so that the output of a library cannot corrupt the messages.

    The event ``wake`` is set when there may be a new or a canceled job. ``shutdown`` is set when the worker must exit:
    its supervisor is gone or sent ``exit``, or it received SIGTERM. Both are set even while the main thread is inside
    native code. ``drain`` is set when the worker must exit once it has no job in progress.
    """

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.shutdown = threading.Event()
        self.drain = threading.Event()
        self._input = _take_over(0, os.O_RDONLY)
        self._output = _take_over(1, os.O_WRONLY)
        self._send_lock = threading.Lock()
        self.on_message: Callable[[], None] = lambda: None
        """Called after each message, by the thread that receives it."""

    def config(self) -> WorkerConfig:
        """Read the first line. Call this once, before ``listen``."""
        return WorkerConfig.load(self._input.readline())

    def listen(self) -> None:
        """Start to receive messages, the end of the supervisor, and SIGTERM. Call this in the main thread."""
        call_on_signals(EXIT_SIGNALS, self._request_shutdown)
        threading.Thread(target=self._receive_messages, name="supervisor-messages", daemon=True).start()

    def send(self, message: str) -> None:
        """Send a message; it is dropped if the supervisor is gone."""
        with self._send_lock, contextlib.suppress(OSError):
            self._output.write(message.encode() + b"\n")
            self._output.flush()

    def _receive_messages(self) -> None:
        while message := self._input.readline():
            if message.strip() == DRAIN.encode():
                self.drain.set()
            elif message.strip() == EXIT.encode():
                self.shutdown.set()
            self.wake.set()
            self.on_message()
        self._request_shutdown()

    def _request_shutdown(self) -> None:
        self.shutdown.set()
        self.wake.set()


def _take_over(descriptor: int, mode: int) -> BinaryIO:
    """Return a private copy of a standard stream; the original stdin then reads nothing, and stdout goes to stderr."""
    private = os.dup(descriptor)
    if mode == os.O_RDONLY:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, descriptor)
        os.close(null)
        return os.fdopen(private, "rb")
    os.dup2(2, descriptor)
    return os.fdopen(private, "wb")
