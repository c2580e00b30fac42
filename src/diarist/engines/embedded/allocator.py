"""Settings of glibc's allocator while Whisper runs.

The attention of Whisper's encoder over more than 20 s takes blocks of more than 32 MiB. glibc maps such blocks from the
kernel one by one and unmaps them again, so that every layer waits for the kernel to clear its pages: a third of the
encoder's time. (``man 3 mallopt``: the threshold of these blocks cannot be set higher than that.)
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
DEFAULT_MMAP_MAX = 65_536
DEFAULT_TRIM_THRESHOLD = 64 * 2**20
"""What the dynamic threshold becomes when the largest blocks have been freed: twice the largest mapped block."""

KEEP_BYTES = 2**30

_lock = threading.Lock()
_users = 0


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):  # TypeError: Windows
        return None


_library = _glibc()


@contextmanager
def large_blocks_on_heap() -> Iterator[None]:
    """Keep blocks of any size on the heap, where they are used again, until the last context that is open ends.

    The settings are those of the whole process. Without glibc this does nothing.
    """
    global _users
    if _library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _library.mallopt(M_MMAP_MAX, 0)
            _library.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _library.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
                _library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        release_free_memory()


def release_free_memory() -> None:
    """Return the free memory of the heap to the system, so that phases with unlike blocks do not add up."""
    if _library is not None:
        _library.malloc_trim(0)
