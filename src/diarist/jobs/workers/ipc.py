r"""The line between the supervisor and its worker process: two pipes, one message a line.

Down (the worker's stdin): the briefing, a JSON object on the first line; then an empty line for each wake, and
``drain`` where no other job should be begun. Its end means that the supervisor is gone. Up (the worker's stdout):
``alive`` as long as the worker is well, ``ready`` once the engine is loaded, ``job-ended <id>`` after each job.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from diarist.settings import Settings, load_settings

ALIVE = "alive"
READY = "ready"
JOB_ENDED = "job-ended"
DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is told before it starts."""

    worker: str
    """Its name: of this one process, never used again."""

    settings: Settings
    fault: str | None = None
    """What is wrong with its predecessors, for its own report until it is ready."""

    gpu: str | None = None
    """The GPU that is its own, by its name outside of the process; None where it has none of its own."""

    def dump(self) -> bytes:
        """One line of JSON, with its end."""
        settings = self.settings.model_dump(mode="json")
        fields = {"worker": self.worker, "settings": settings, "fault": self.fault, "gpu": self.gpu}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def load(cls, line: bytes) -> WorkerConfig:
        """The briefing that ``dump`` wrote.

        Raises:
            ValueError: it is no briefing.
        """
        fields = json.loads(line)
        return cls(fields["worker"], load_settings(**fields["settings"]), fields["fault"], fields["gpu"])


class WorkerChannel:
    """The worker's end. Takes the process's stdin and stdout for itself: nobody else's output can garble the events.

    ``wake`` is set when there may be news: a new job, or one canceled. ``leave`` is set when the worker should end: its
    supervisor is gone, or it got SIGTERM. Both also while the main thread is inside native code. ``drain`` is set when
    it should end once it has nothing in hand.
    """

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.leave = threading.Event()
        self.drain = threading.Event()
        self._down = _take(0, os.O_RDONLY)
        self._up = _take(1, os.O_WRONLY)
        self._saying = threading.Lock()
        self.heard: Callable[[], None] = lambda: None
        """Called at each wake, by the thread that hears it."""

    def config(self) -> WorkerConfig:
        """The first line. Call it once, before ``listen``."""
        return WorkerConfig.load(self._down.readline())

    def listen(self) -> None:
        """Begin to hear wakes, the end of the supervisor, and SIGTERM. Call it in the main thread."""
        hears, told = os.pipe()
        os.set_blocking(told, False)
        # The interpreter runs signal handlers between two steps of the main thread, which may be minutes away in native
        # code; it writes to this descriptor at once.
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._hear_signal, args=(hears,), name="signals", daemon=True).start()
        threading.Thread(target=self._hear_supervisor, name="supervisor", daemon=True).start()

    def say(self, event: str) -> None:
        """Tell the supervisor; a supervisor that is gone hears nothing."""
        with self._saying, contextlib.suppress(OSError):
            self._up.write(event.encode() + b"\n")
            self._up.flush()

    def _hear_supervisor(self) -> None:
        while message := self._down.readline():
            if message.strip() == DRAIN.encode():
                self.drain.set()
            self.wake.set()
            self.heard()
        self._part()

    def _hear_signal(self, hears: int) -> None:
        while signal.SIGTERM not in os.read(hears, 1):
            pass
        self._part()

    def _part(self) -> None:
        self.leave.set()
        self.wake.set()


def _take(descriptor: int, mode: int) -> BinaryIO:
    """A private copy of a standard stream, which then reads nothing (stdin), or goes where stderr goes (stdout)."""
    private = os.dup(descriptor)
    if mode == os.O_RDONLY:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, descriptor)
        os.close(nothing)
        return os.fdopen(private, "rb")
    os.dup2(2, descriptor)
    return os.fdopen(private, "wb")
