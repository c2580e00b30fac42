"""Reading of a pipe with a time limit.

POSIX systems can wait until a pipe has data. Windows cannot wait for the pipes of ``subprocess``: there, a thread reads
ahead, and the wait is for the thread.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from contextlib import suppress
from typing import IO, Protocol

_HAS_POLL = hasattr(select, "poll") and hasattr(os, "readv")
_BLOCK_BYTES = 2**16
_BLOCKS_AHEAD = 4
"""How many blocks the thread reads ahead. The writer waits when these and the buffer of the pipe are full."""

_JOIN_TIMEOUT_S = 5.0


class PipeReader(Protocol):
    """Reads a pipe. It is used by one thread."""

    def read_into(self, buffer: memoryview, timeout_s: float) -> int | None:
        """Wait for data, and read what there is into ``buffer``.

        Returns:
            The number of bytes that were read, or 0 at the end of the pipe; None if there was nothing within the time.

        Raises:
            OSError: The pipe cannot be read.
        """
        ...

    def close(self) -> None:
        """Stop reading. All processes that write to the pipe must have ended. The pipe itself is not closed."""
        ...


def read_pipe(pipe: IO[bytes]) -> PipeReader:
    """Return a reader of a pipe, which nothing else reads."""
    if sys.platform != "win32" and _HAS_POLL:
        return _PollingReader(pipe)
    return _ThreadReader(pipe)


if sys.platform != "win32":

    class _PollingReader:
        def __init__(self, pipe: IO[bytes]) -> None:
            self._descriptor = pipe.fileno()
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)

        def read_into(self, buffer: memoryview, timeout_s: float) -> int | None:
            if not self._poll.poll(timeout_s * 1000):
                return None
            return os.readv(self._descriptor, [buffer])

        def close(self) -> None:
            pass


class _ThreadReader:
    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        self._blocks: queue.Queue[bytes | OSError] = queue.Queue(_BLOCKS_AHEAD)
        self._rest = memoryview(b"")
        self._ended = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def read_into(self, buffer: memoryview, timeout_s: float) -> int | None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_ahead, name="pipe-reader", daemon=True)
            self._thread.start()
        if not self._rest and not self._ended:
            try:
                block = self._blocks.get(timeout=timeout_s)
            except queue.Empty:
                return None
            if isinstance(block, OSError):
                raise block
            self._rest, self._ended = memoryview(block), not block
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._closed.set()
        with suppress(queue.Empty):
            while True:
                self._blocks.get_nowait()  # so that the thread does not wait for space
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT_S)

    def _read_ahead(self) -> None:
        while not self._closed.is_set():
            try:
                block: bytes | OSError = os.read(self._descriptor, _BLOCK_BYTES)
            except OSError as error:
                block = error
            self._blocks.put(block)
            if not block or isinstance(block, OSError):
                return
