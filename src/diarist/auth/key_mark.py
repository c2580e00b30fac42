"""A mark, outside of the job store, that API keys exist.

When a job store is lost, its keys are lost with it, and a store without keys is one that needs none. The mark tells the
two apart: a service that has it refuses everyone until there is a key again.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

FILE_NAME = "keys-exist"
"""The name of the mark in DATA_DIR."""

_TEXT = (
    "API keys were created for this service. As long as this file exists, every request needs one, even if the job "
    "store that held them is lost.\n"
)


class KeyMark:
    """The mark in a DATA_DIR. Safe to call from any thread."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME
        self._failed = False

    def exists(self) -> bool:
        """Return whether the mark is there. If that cannot be found out, the answer is yes."""
        try:
            self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            logger.warning("%s cannot be read (%s), so requests without a key are refused", self.path, error.strerror)
        return True

    def set(self) -> None:
        """Create the mark, and DATA_DIR, unless they exist. A failure is logged once, and the next call tries again."""
        if self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):
                file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    # An empty file has the same effect, if there is no space for the text.
                    with suppress(OSError):
                        os.write(file, _TEXT.encode())
                finally:
                    os.close(file)
        except OSError as error:
            if not self._failed:
                logger.error(  # noqa: TRY400 - the message is complete
                    "%s cannot be created (%s). If the job store were lost now, nobody would need a key any more. Let "
                    "this user own DATA_DIR, and free space on its disk.", self.path, error.strerror,
                )  # fmt: skip
            self._failed = True
        else:
            self._failed = False
