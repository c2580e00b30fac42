"""One service a DATA_DIR: its start removes what an earlier one left, which must not be what another is using."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from diarist.errors import ConfigurationError

LOCK_FILE = "service.lock"


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Own ``data_dir``, made where it is missing. The lock ends with the process, however that ends; its file stays.

    Raises:
        ConfigurationError: another service owns it, or it cannot be written.
    """
    path = data_dir / LOCK_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"DATA_DIR {data_dir} cannot be written ({error.strerror}). Let this user own it, or set DATA_DIR to a "
            "folder that can be written."
        ) from error
    with file:
        if not _try_lock(file):
            file.seek(0)
            owner = file.read().strip()
            raise ConfigurationError(
                f"DATA_DIR {data_dir} is in use by another Diarist service{f' (process {owner})' if owner else ''}. "
                "Stop that one, or give this one a DATA_DIR of its own."
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        # Far beyond the end, so that the process id can still be read.
        file.seek(2**20)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
