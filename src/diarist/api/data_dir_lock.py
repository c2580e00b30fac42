"""A lock that allows only one service to use a DATA_DIR.

A service removes what an earlier one left when it starts; it must not remove what another running service uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigurationError(
            f"DATA_DIR {data_dir} is not writable ({error.strerror}). Make this user its owner, or set DATA_DIR to "
            "a writable folder."
        ) from error
    with file:
        if not _try_lock(file):
            file.seek(0)
            owner = file.read().decode(errors="replace").strip()
            raise ConfigurationError(
                f"DATA_DIR {data_dir} is in use by another Diarist service{f' (process {owner})' if owner else ''}. "
                "Stop that service, or set another DATA_DIR for this one."
            )
        with scratch.disk_full_errors("the service was started", "DATA_DIR"):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        # The locked byte is far beyond the end of the file, so that the process ID can still be read.
        file.seek(2**20)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
