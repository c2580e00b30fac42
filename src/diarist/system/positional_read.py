"""Reading at an offset of an open file, without a change of its position."""

from __future__ import annotations

import os
import sys
import threading

_HAS_PREAD = hasattr(os, "pread")
_POSITION_LOCK = threading.Lock()


def pread(descriptor: int, count: int, offset: int) -> bytes:
    """Return up to ``count`` bytes at ``offset`` of an open file, as ``os.pread`` does; there are none after its end.

    Without ``os.pread`` (Windows), the position is moved and restored. Only calls of this function are safe at the same
    time then, and not other reads of the same file, even through a duplicate of the descriptor in another process.

    Raises:
        OSError: The file cannot be read, or the offset is not one of a file.
    """
    if sys.platform != "win32" and _HAS_PREAD:
        return os.pread(descriptor, count, offset)
    with _POSITION_LOCK:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)
