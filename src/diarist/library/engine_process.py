"""The engine process as the importing program sees it: its start, its requests, and its end.

The native libraries compute for seconds between two points at which Python code could stop them: one call of Whisper's
decoder takes up to 10 s. A process can be ended at any time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any, TypeAlias

from diarist.child_environment import worker_environment
from diarist.errors import EngineUnavailable, JobFailed
from diarist.library.messages import (
    Cancel,
    Ended,
    Failed,
    Finalized,
    Load,
    Logged,
    Message,
    Numbered,
    Progressed,
    Request,
)
from diarist.system.process_tree import describe_end, kill_with_descendants
from diarist.types import Utterance

OnProgress: TypeAlias = Callable[[str, float], object]
"""A callback that receives the stage and the share of the whole work that is done, 0..1."""

STOP_GRACE_S = 1.0
"""The time in which the work may stop at a point where the loaded models stay usable. Then the process is ended."""

POLL_S = 0.2
"""The interval at which Ctrl-C can interrupt a wait where the system does not interrupt it at once (Windows)."""

END_S = 5.0
"""The maximum time that a killed process takes to end."""

PROGRAM = "import sys; sys.path[:] = {path!r}; from diarist.library.engine_program import main; main()"


class EngineProcess:
    """A process with a loaded engine, which performs one request at a time.

    Args:
        folder: The working directory of the process, which relative paths in the settings refer to.

    Raises:
        EngineUnavailable: The process cannot be started.
    """

    def __init__(self, folder: Path) -> None:
        path = [str(Path(folder, each)) for each in sys.path]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM.format(path=path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=worker_environment(), cwd=folder,
            )  # fmt: skip
        except OSError as error:
            raise EngineUnavailable(f"The engine process cannot be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), name="diarist-engine", daemon=True
        )
        reader.start()
        self._number = 0
        self.end = weakref.finalize(self, _end, self._process, self._stdin, reader, os.getpid())
        """Ends the process and everything that it started. Further calls do nothing."""

    @property
    def usable(self) -> bool:
        """Whether requests can be sent. The process of a program belongs neither to its copy after a ``fork``."""
        _, _, arguments, _ = self.end.peek() or (None, None, (None,), None)
        return arguments[-1] == os.getpid() and self._process.poll() is None

    def perform(self, request: Request, on_progress: OnProgress | None) -> Generator[tuple[Utterance, ...], None, Any]:
        """Perform a request: yield utterances as soon as they are final, and return the result.

        If the generator is closed, or an exception is raised in it (by Ctrl-C or by ``on_progress``), the work stops.
        The process ends if it does not stop within ``STOP_GRACE_S``.

        Raises:
            EngineUnavailable: The process died while it loaded the engine.
            JobFailed: The process died.
        """
        self._number += 1
        answered = False
        try:
            self._send(request)
            while True:
                match self._receive():
                    case Progressed(stage, done):
                        if on_progress is not None:
                            on_progress(stage, done)
                    case Logged(record):
                        _relay(record)
                    case Finalized(utterances):
                        yield utterances
                    case Ended(result):
                        answered = True
                        return result
                    case Failed(error):
                        answered = True
                        raise error
                    case None:
                        raise self._death(request)
        finally:
            if not answered:
                self._stop()

    def _send(self, request: Request | Cancel) -> None:
        data = pickle.dumps(Numbered(self._number, request))
        with contextlib.suppress(OSError):  # if the process has died, the reader reports it
            self._stdin.write(data)
            self._stdin.flush()

    def _receive(self) -> Message | None:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._messages.get(timeout=POLL_S)

    def _stop(self) -> None:
        try:
            self._send(Cancel())
            until = time.monotonic() + STOP_GRACE_S
            while (left_s := until - time.monotonic()) > 0:
                try:
                    message = self._messages.get(timeout=min(left_s, POLL_S))
                except queue.Empty:
                    continue
                if isinstance(message, Ended | Failed):
                    return
                if message is None:
                    break
        except BaseException:  # Ctrl-C was pressed again
            self.end()
            raise
        self.end()

    def _death(self, request: Request) -> EngineUnavailable | JobFailed:
        code = self._process.wait()
        how = describe_end(code)
        if isinstance(request, Load):
            return EngineUnavailable(f"The engine process {how} while it loaded the models.")
        return JobFailed(f"The engine process {how}. It is started again for the next recording.")


def _read(stdout: IO[bytes], messages: queue.SimpleQueue[Message | None]) -> None:
    # An exception means that the process has ended, in the middle of a message or before one.
    with stdout, contextlib.suppress(Exception):
        while True:
            messages.put(pickle.load(stdout))  # noqa: S301 - from a process that this one has started
    messages.put(None)


def _end(process: subprocess.Popen[bytes], stdin: IO[bytes], reader: threading.Thread, owner: int) -> None:
    if os.getpid() != owner:
        return
    with contextlib.suppress(OSError):
        stdin.close()
    kill_with_descendants(process)  # a decoder would outlive the process
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    if reader is not threading.current_thread():  # a garbage collection may happen in any thread
        reader.join(END_S)


def _relay(record: Any) -> None:
    name, level = record["name"], record["levelno"]
    if logging.getLogger(name).isEnabledFor(level):
        logging.getLogger(name).handle(logging.makeLogRecord(record))
