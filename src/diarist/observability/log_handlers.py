"""Handlers that write formatted records to the console and to the log file, and what happens if that fails.

The handlers of the standard library print a record that they cannot write, with its arguments and a traceback, to
stderr. What is printed there has not been through the formatter, which masks secrets and keeps a record on its line.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

logger = logging.getLogger(__name__)

FILE_BYTES = 10 * 2**20
BACKUP_FILES = 5


class _FailureReport:
    """Reports the first of several failures in a row to the other handlers, without the record that was lost."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._failing = False
        self._reported = False

    def write(self, record: logging.LogRecord, emit: Callable[[logging.LogRecord], None]) -> None:
        """Call ``emit``, and note whether it calls ``failed``. The caller holds the lock of its handler."""
        self._failing = False
        emit(record)
        self._reported = self._failing

    def failed(self, record: logging.LogRecord) -> None:
        """Report that a record could not be written because of the current exception."""
        error = sys.exc_info()[1]
        self._failing = True
        if self._reported:
            return
        self._reported = True  # before the report, which reaches the failing handler too
        if isinstance(error, OSError):
            logger.error(
                "Log lines are missing from %s, which cannot be written (%s)", self._destination, error.strerror
            )
        else:
            logger.error("A line of %s is missing from %s (%s)", record.name, self._destination, type(error).__name__)
        self._failing = True


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._report = _FailureReport("the console")

    def emit(self, record: logging.LogRecord) -> None:
        self._report.write(record, super().emit)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the standard library
        self._report.failed(record)


class LogFileHandler(RotatingFileHandler):
    """Writes to a file that only this user can read, and starts a new one at ``FILE_BYTES``.

    A file of an earlier release that every user of the machine can read is made private. If the file is removed or
    moved away, a new one is created.

    Raises:
        OSError: the file or its folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._report = _FailureReport(f"the log file {path}")
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=BACKUP_FILES, encoding="utf-8")
        for number in range(1, BACKUP_FILES + 1):
            with contextlib.suppress(OSError):
                _make_private(Path(f"{self.baseFilename}.{number}"))

    def emit(self, record: logging.LogRecord) -> None:
        self._report.write(record, self._emit)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the standard library
        self._report.failed(record)

    def close(self) -> None:
        # What a full disk did not take is lost.
        with contextlib.suppress(OSError):
            super().close()

    def _emit(self, record: logging.LogRecord) -> None:
        try:
            if self._is_gone():
                self.close_stream()
                Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
                self.stream = self._open()
        except OSError:
            self.handleError(record)
        else:
            super().emit(record)

    def _is_gone(self) -> bool:
        if self.stream is None:
            return True
        try:
            return not os.path.samestat(Path(self.baseFilename).stat(), os.fstat(self.stream.fileno()))
        except FileNotFoundError:
            return True

    def close_stream(self) -> None:
        """Close the file; the next record opens it again."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def _open(self) -> io.TextIOWrapper:
        file = open(self.baseFilename, "a", encoding=self.encoding, opener=_open_private)  # noqa: SIM115
        with contextlib.suppress(OSError):
            _make_private(Path(self.baseFilename))
        return file


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_private(path: Path) -> None:
    """Let only its owner read a file that everyone can read. Permissions that an operator chose for a group stay."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        path.chmod(0o600)
