"""Ending a worker process whose main thread does not respond to a shutdown request."""

from __future__ import annotations

import threading
from collections.abc import Callable

from diarist.system.process_tree import kill_own_tree

EXIT_GRACE_S = 1.5
"""How long the work may take to stop by itself after a shutdown request, before the process is ended."""


def shutdown_watchdog(shutdown: threading.Event, stopped: threading.Event, abort: Callable[[], None]) -> None:
    """End the process soon after ``shutdown`` is set, even if the main thread is inside native code.

    Args:
        shutdown: set when the worker must exit.
        stopped: set by the main thread once it has stopped; the process then exits by itself.
        abort: called after ``EXIT_GRACE_S``. The process is killed if this takes longer than half of that time.
    """
    shutdown.wait()
    if stopped.wait(EXIT_GRACE_S):
        return
    kill = threading.Timer(EXIT_GRACE_S / 2, kill_own_tree)
    kill.daemon = True
    kill.start()
    abort()
