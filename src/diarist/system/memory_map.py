"""Files that are mapped into memory."""

from __future__ import annotations

import mmap
import sys


def release_pages(mapped: mmap.mmap) -> None:
    """Let the system take back the pages of a mapped file that were read. They are read again when they are needed.

    Otherwise they count as memory of this process. Windows has no such call: there, the system removes them from the
    working set of the process when memory becomes scarce.
    """
    if sys.platform != "win32" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
