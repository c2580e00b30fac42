"""How a worker process ends where its work does not hear that it should."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

LEAVE_S = 1.5
"""How long the work may take to stop by itself when the worker should leave, before the process ends with all in it."""


def shutdown_watchdog(leave: threading.Event, left: threading.Event, give_up: Callable[[], None]) -> None:
    """End the process soon after it was told to leave, also where the main thread is held up in native code."""
    leave.wait()
    if left.wait(LEAVE_S):
        return
    end = threading.Timer(LEAVE_S / 2, end_process)
    end.daemon = True
    end.start()
    give_up()


def end_process() -> None:
    """At once, with the processes that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
