"""Ending a process together with those that it started, and other ways to control a child process.

POSIX systems have process groups and signals. Windows has neither: there, the descendants of a process are found by
psutil, and a process can only be killed. The branches for Windows were not run on a Windows machine; those that
are used without process groups are tested on Linux.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any, NoReturn

import psutil


def group_options() -> dict[str, Any]:
    """Return the options of ``subprocess.Popen`` by which a child process leads a process group of its own.

    Ctrl-C in the terminal does not reach it then, and ``kill_tree`` ends it with all its descendants.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    else:  # noqa: RET505 - mypy skips one of the branches on each system
        return {"process_group": 0} if hasattr(os, "killpg") else {}


def request_exit(process: subprocess.Popen[bytes]) -> bool:
    """Ask a child process to exit, by SIGTERM. Return False where processes can only be killed."""
    if sys.platform != "win32" and hasattr(os, "killpg"):
        process.terminate()
        return True
    return False


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a child process that was started with ``group_options``, and its descendants.

    If the process has ended already, its descendants are killed as well where the system has process groups. The ID of
    a group is not reused while the group has members. Elsewhere, orphans cannot be found.
    """
    if sys.platform != "win32" and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.returncode is None:
        kill_with_descendants(process)


def kill_with_descendants(process: subprocess.Popen[bytes]) -> None:
    """Kill a child process that may be in the process group of its parent, and its descendants.

    Descendants whose parents have ended are not found.
    """
    descendants = _descendants(process.pid)
    process.kill()
    _kill(descendants)


def kill_own_tree() -> NoReturn:
    """Kill this process at once, together with its descendants if it leads a process group or there are no groups."""
    if sys.platform != "win32" and hasattr(os, "killpg"):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    else:
        _kill(_descendants(os.getpid()))
    os._exit(1)


def describe_end(code: int) -> str:
    """Return how a process ended, by its ``returncode``, as the predicate of a sentence about it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}{' (possibly out of memory)' * (name == 'SIGKILL')}"


def is_suspended(pid: int) -> bool:
    """Return whether a process was stopped by a signal or a debugger; on Windows, whether its threads are suspended."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.Error):
            each.kill()
