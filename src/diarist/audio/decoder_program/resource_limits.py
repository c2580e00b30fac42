"""The limits of the decoder process: its memory, processor time, files and descriptors."""

from __future__ import annotations

import os
import sys
from typing import Any


def apply_limits(request: dict[str, Any]) -> None:
    """Apply limits before any input is read, and end this process together with its parent."""
    import resource
    import signal

    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != request["parent"]:
            sys.exit(1)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CPU, request["cpu_s"]),
    ):
        hard = resource.getrlimit(limit)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (capped, capped))


def apply_memory_limit(memory_bytes: int) -> None:
    """Limit the address space to what the libraries use plus ``memory_bytes``. Only Linux accounts for it usefully."""
    import resource

    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as counts:  # noqa: PTH123
            used_bytes = int(counts.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes, used_bytes + memory_bytes))
