"""Locks on files that a process uses, which end together with the process.

POSIX systems lock the file itself, with ``flock``: it can still be read, written and renamed. On Windows, others could
not read a locked file; there, a second file beside it is locked, whose name ends with ``.lock``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from diarist.system.file_replacement import remove_file

if TYPE_CHECKING:
    from filelock import FileLock

if sys.platform == "win32":
    _HAS_FLOCK = False
else:
    try:
        import fcntl
    except ImportError:
        _HAS_FLOCK = False
    else:
        _HAS_FLOCK = True

_LOCK_SUFFIX = ".lock"


@contextmanager
def locked(file: BinaryIO, path: Path) -> Iterator[None]:
    """Lock an open file until the context ends, and close it.

    Args:
        file: the file. It is closed at the end or, without ``flock``, at once.
        path: its path. It may be renamed while it is locked.

    Raises:
        OSError: the file, or the one that is locked in its place, cannot be locked.
    """
    if sys.platform != "win32" and _HAS_FLOCK:
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
        return
    file.close()
    lock = _lock_beside(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
        remove_file(Path(lock.lock_file))


def remove_unlocked(path: Path) -> bool:
    """Remove a file unless a process has locked it, and return whether it was removed.

    Raises:
        FileNotFoundError: the file does not exist.
        PermissionError: this user may not remove it or, on Windows, a process has it open.
        OSError: it cannot be removed.
    """
    if sys.platform != "win32" and _HAS_FLOCK:
        with path.open("r+b") as file:  # NFS grants an exclusive lock only to a file that is open for writing
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            path.unlink()
            return True
    # The lock of a file that exists is removed with it. One that a killed process left after its file can be locked.
    is_lock = path.name.endswith(_LOCK_SUFFIX)
    if is_lock and path.with_name(path.name.removesuffix(_LOCK_SUFFIX)).exists():
        return False
    from filelock import Timeout

    lock = _lock(path) if is_lock else _lock_beside(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        if not is_lock:
            path.unlink()
    finally:
        lock.release()
        remove_file(Path(lock.lock_file))
    return True


def _lock_beside(path: Path) -> FileLock:
    return _lock(path.with_name(path.name + _LOCK_SUFFIX))


def _lock(path: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(path)
