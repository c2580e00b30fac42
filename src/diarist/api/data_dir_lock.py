"""A lock that allows only one service to use a DATA_DIR.

A service removes what an earlier one left when it starts; it must not remove what another running service uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout, UnixFileLock

from diarist import scratch
from diarist.errors import ConfigurationError

LOCK_FILE = "service.lock"


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Lock ``data_dir`` while the context is active. The folder is created if it does not exist.

    The operating system releases the lock when the process ends, even if it crashes. The lock file remains.

    Raises:
        ConfigurationError: another service has locked the folder, or it is not writable.
        StorageFull: the disk is full.
    """
    path = data_dir / LOCK_FILE
    lock = FileLock(path, timeout=0)
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except Timeout as error:
        owner = _owner(path)
        raise ConfigurationError(
            f"DATA_DIR {data_dir} is in use by another Diarist service{f' (process {owner})' if owner else ''}. "
            "Stop that service, or set another DATA_DIR for this one."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"DATA_DIR {data_dir} is not writable ({error.strerror}). Make this user its owner, or set DATA_DIR to "
            "a writable folder."
        ) from error
    try:
        if isinstance(lock, UnixFileLock):
            with scratch.disk_full_errors("the service was started", "DATA_DIR"):
                path.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        lock.release()


def _owner(path: Path) -> str:
    """Return the process ID of the service that holds the lock, or an empty string if it cannot be read.

    It is the first line of the file. On Windows, no other process can read a file that is locked.
    """
    try:
        return path.read_text(encoding="ascii", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
