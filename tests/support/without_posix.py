"""What is missing in Python on Windows, taken away on Linux, so that the code in its place is used.

``install`` is called first of all in a process of its own, before ``diarist`` is imported.
"""

from __future__ import annotations

import os
import select
import signal
import sys

MODULES = ("fcntl", "resource", "termios")
FUNCTIONS = ("getpgrp", "killpg", "pread", "readv", "set_blocking", "setpgid", "setsid")


def install() -> None:
    """Take away the modules, and the functions of ``os`` and ``select``, for the rest of this process."""
    import psutil  # noqa: F401 - on Linux, it imports ``resource`` itself

    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]
    for name in FUNCTIONS:
        delattr(os, name)
    del select.poll
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        delattr(signal, name)
