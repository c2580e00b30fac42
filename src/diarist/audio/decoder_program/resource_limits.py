"""The limits of the decoder process: its memory, processor time, files and descriptors.

``diarist.system.child_limits`` says what limits the process where it cannot limit itself.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_PARENT_CHECK_S = 1.0


def apply_limits(request: dict[str, Any]) -> None:
    """Apply limits before any input is read, and end this process together with its parent."""
    if sys.platform != "win32":
        _follow_parent(request["parent"])
        if request["limits_itself"]:
            _limit_resources(request["cpu_s"])


def apply_memory_limit(memory_bytes: int) -> None:
    """Limit the address space to what the libraries use plus ``memory_bytes``. Only Linux accounts for it usefully."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as counts:  # noqa: PTH123
            used_bytes = int(counts.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes, used_bytes + memory_bytes))


def _follow_parent(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)
    else:
        import threading

        threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()


def _limit_resources(cpu_s: int) -> None:
    if sys.platform != "win32":
        import resource

        for limit, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NOFILE, 64),
            (resource.RLIMIT_CPU, cpu_s),
        ):
            hard = resource.getrlimit(limit)[1]
            capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (capped, capped))


def end_with_parent(parent: int) -> None:
    """End this process within a second after its parent, on systems that do not do it."""
    import time

    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
