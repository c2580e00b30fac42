"""Settings of glibc's allocator while Whisper runs.

The attention of Whisper's encoder takes blocks of more than 32 MiB: heads x frames^2 x 4 bytes, which is more from 20 s
on with the 8 heads of base, and from 13 s on with the 20 heads of the large models. glibc maps such blocks from the
kernel one by one and unmaps them again, so that every layer waits for the kernel to clear its pages: a third of the
encoder's time. (``man 3 mallopt``: the threshold of these blocks cannot be set higher than that.)
"""

from __future__ import annotations

import ctypes
import threading
from contextlib import AbstractContextManager

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
DEFAULT_MMAP_MAX = 65_536
DEFAULT_TRIM_THRESHOLD = 64 * 2**20
"""What the dynamic threshold becomes when the largest blocks have been freed: twice the largest mapped block."""

KEEP_BYTES = 2**30
"""As much as the largest batch: what it frees at the end of the heap is used again."""


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError: Windows
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


class HeapOfLargeBlocks(AbstractContextManager[None]):
    """While at least one caller is within the context, blocks of any size are on the heap, where they are used again.

    The settings are those of the whole process. Without glibc the context does nothing. Any number of threads may
    enter it.
    """

    def __init__(self) -> None:
        self._library = _glibc()
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._set(0, KEEP_BYTES)

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(DEFAULT_MMAP_MAX, DEFAULT_TRIM_THRESHOLD)
        self.release_free_memory()

    def release_free_memory(self) -> None:
        """Return the free memory of the heap to the system, so that phases with unlike blocks do not add up."""
        if self._library is not None:
            self._library.malloc_trim(0)

    def _set(self, mmap_max: int, trim_threshold_bytes: int) -> None:
        if self._library is not None:
            self._library.mallopt(M_MMAP_MAX, mmap_max)
            self._library.mallopt(M_TRIM_THRESHOLD, trim_threshold_bytes)


heap_of_large_blocks = HeapOfLargeBlocks()
"""The one instance of the process."""
