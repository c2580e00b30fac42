"""Removes from the modules of Python what they do not have on Windows."""

from __future__ import annotations

import mmap
import os
import select
import signal
import stat
import sys
from types import ModuleType

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
"""Modules that cannot be imported on Windows."""

OS = (
    "fork", "forkpty", "getpgid", "getpgrp", "getsid", "killpg", "mkfifo", "nice", "posix_fadvise", "posix_spawn",
    "pread", "preadv", "pwrite", "pwritev", "readv", "sched_getaffinity", "setpgid", "setpgrp", "setsid", "sysconf",
    "wait3", "wait4", "writev",
)  # fmt: skip

SIGNALS_OF_WINDOWS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
SIGNAL_FUNCTIONS = (
    "alarm",
    "getitimer",
    "pause",
    "pthread_kill",
    "pthread_sigmask",
    "setitimer",
    "sigpending",
    "sigwait",
)


def copies() -> dict[str, ModuleType]:
    """Return copies of the modules as they are, for libraries that use other functions on Windows."""
    found: dict[str, ModuleType] = {}
    for module in (os, select, signal):
        found[module.__name__] = ModuleType(module.__name__)
        vars(found[module.__name__]).update(vars(module))
    return found


def remove(keep: frozenset[str] = frozenset()) -> None:
    """Remove everything except the signals in ``keep``. Modules that have imported single names keep them."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # which makes `import` fail
    _delete(os, OS)
    _delete(select, [name for name in vars(select) if name.startswith(("POLL", "EPOLL", "poll", "epoll"))])
    _delete(mmap, [name for name in vars(mmap) if name.startswith("MADV_")])
    names = [name for name in vars(signal) if name.startswith("SIG") and isinstance(vars(signal)[name], signal.Signals)]
    _delete(signal, [name for name in names if name not in SIGNALS_OF_WINDOWS | keep])
    _delete(signal, SIGNAL_FUNCTIONS)
    if sys.platform != "win32":
        _accept_only_sockets()


def _delete(module: ModuleType, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        vars(module).pop(name, None)


def _accept_only_sockets() -> None:
    set_wakeup_fd = signal.set_wakeup_fd

    def checked(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
        if fd >= 0 and not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ValueError("on Windows, the descriptor must be a socket")
        return set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)

    signal.set_wakeup_fd = checked
