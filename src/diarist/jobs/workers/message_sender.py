"""Sending messages to a worker process without waiting for it."""

from __future__ import annotations

import contextlib
import threading
from typing import IO


class MessageSender:
    """Writes messages to a pipe in a thread of its own: writing blocks while the pipe of a process that hangs is full.

    If the process has exited, messages are dropped.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._changed = threading.Condition()
        self._waiting: dict[bytes, None] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="worker-message-sender", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises ``RuntimeError`` if the system does not allow another one."""
        self._thread.start()

    def send(self, message: bytes) -> None:
        """Let a message be sent soon. It is sent once if an equal one still waits."""
        with self._changed:
            self._waiting[message] = None
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Close the pipe, and wait up to ``timeout`` seconds until that is done. The process must have ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            self._pipe.close()
        else:
            self._thread.join(timeout)

    def _write_all(self) -> None:
        with contextlib.suppress(OSError), self._pipe:
            while messages := self._next():
                self._pipe.write(messages)
                self._pipe.flush()

    def _next(self) -> bytes:
        """Wait for messages, and return them; none if the pipe is to be closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            messages = b"" if self._closing else b"".join(self._waiting)
            self._waiting.clear()
        return messages
