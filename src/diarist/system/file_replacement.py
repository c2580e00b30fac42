"""Renaming and removal of files that other programs may have open.

POSIX systems rename and remove a file whether or not it is open. Windows refuses it while a program has the file open
that did not expect this. Virus scanners and indexers open each new file for a moment, so that it is tried again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

_RETRY_S = 2.0 if sys.platform == "win32" else 0.0
"""For how long Windows is asked again. A scan of a file of this service takes less."""

_RETRY_INTERVAL_S = 0.02


def replace_file(source: Path, target: Path) -> None:
    """Rename a file to ``target`` on the same disk, and replace a file of that name. A reader sees one or the other.

    Raises:
        PermissionError: The folder cannot be written or, on Windows, a program has one of the files open.
        OSError: The file cannot be renamed.
    """
    _while_open(lambda: source.replace(target))


def remove_file(path: Path) -> None:
    """Remove a file, if it exists.

    Raises:
        PermissionError: The folder cannot be written or, on Windows, a program has the file open.
        OSError: The file cannot be removed.
    """
    _while_open(lambda: path.unlink(missing_ok=True))


def _while_open(action: Callable[[], _T]) -> _T:
    """Perform an action, and repeat it while Windows refuses it because a program has the file open."""
    deadline = time.monotonic() + _RETRY_S
    while True:
        try:
            return action()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_RETRY_INTERVAL_S)
