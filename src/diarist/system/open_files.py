"""How many files and sockets a process may open."""

from __future__ import annotations

import sys
from contextlib import suppress


def max_open_files() -> int | None:
    """Return the limit of file descriptors of this process (``ulimit -n``), or None if there is none.

    On Windows, sockets and handles are not limited in this way.
    """
    limit: int | None = None
    if sys.platform != "win32":
        with suppress(ImportError):
            import resource

            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = None if soft == resource.RLIM_INFINITY else soft
    return limit
