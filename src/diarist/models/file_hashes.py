"""SHA-256 hashes of files, which are computed once and remembered until the file changes.

Hashing gigabytes at each start would take longer than loading them. The hash of a file is therefore stored in
``.hashes.json`` in the folder of the file, together with the size, the inode and the times of modification and change
of the file. Everything that writes to a file changes its time of change, which no program can set. Python does not tell
that time on Windows, where a program that resets the time of modification goes unnoticed. In a folder that cannot be
written, hashes are remembered until the process ends.

Whoever can write to the folder can also write ``.hashes.json``. The hashes protect against damage and mistakes; reading
a file again (``diarist models verify``) does not depend on that file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

from diarist.system.file_replacement import replace_file

RECORD_FILE: Final = ".hashes.json"

_CLOCK_STEP_NS = 20_000_000
"""The longest time for which a file system may give two changes of a file the same time: two ticks of a slow kernel."""


@dataclass(frozen=True, slots=True)
class _HashedFile:
    """Represents a file as it was when it was hashed."""

    sha256: str
    size_bytes: int
    inode: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, sha256: str, status: os.stat_result) -> _HashedFile:
        return cls(sha256, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class _Place:
    """Represents the place where the hash of a file is stored."""

    folder: Path
    name: str
    """The name of the entry: that of the file, or its path if the record is in another folder."""

    @classmethod
    def of(cls, path: Path, record_folder: Path | None) -> _Place:
        return cls(path.parent, path.name) if record_folder is None else cls(record_folder, str(path.absolute()))

    def write(self, hashed: _HashedFile) -> None:
        """Add the hash to the record. Nothing happens if the folder cannot be written or the disk is full."""
        # If two processes write the record at the same time, one entry may be lost. That file is then hashed once more.
        record = {**_read_record(self.folder), self.name: hashed}
        record = {name: each for name, each in record.items() if (self.folder / name).exists()}
        content = json.dumps({name: asdict(each) for name, each in sorted(record.items())}, indent=1)
        partial = self.folder / f"{RECORD_FILE}.{uuid.uuid4().hex}"
        with suppress(OSError):
            try:
                partial.write_text(content + "\n", encoding="utf-8")
                replace_file(partial, self.folder / RECORD_FILE)
            finally:
                partial.unlink(missing_ok=True)


def sha256_of(path: Path, *, always_read: bool = False, record_folder: Path | None = None) -> str:
    """Return the SHA-256 of a file as hexadecimal digits; it is read only if it has changed since it was last hashed.

    Args:
        path: The file.
        always_read: Read the file even if its hash is remembered.
        record_folder: The folder that remembers the hash, if the folder of the file belongs to another program.

    Raises:
        OSError: If it cannot be read.
    """
    status = path.stat()
    place = _Place.of(path, record_folder)
    if not always_read:
        for hashed in (_hashes_of_this_process().get(path.absolute()), _read_record(place.folder).get(place.name)):
            if hashed is not None and hashed == _HashedFile.of(hashed.sha256, status):
                return hashed.sha256
    _wait_for_another_time(status)
    with path.open("rb") as stream:
        before = os.fstat(stream.fileno())
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        hashed = _HashedFile.of(sha256, before)
        unchanged = hashed == _HashedFile.of(sha256, os.fstat(stream.fileno()))
    if unchanged:
        _hashes_of_this_process()[path.absolute()] = hashed
        place.write(hashed)
    return sha256


def remember(path: Path, sha256: str) -> None:
    """Remember the hash of a file that this process has hashed while it wrote it, or before it renamed it to ``path``.

    Raises:
        OSError: If the file does not exist.
    """
    _wait_for_another_time(path.stat())
    hashed = _HashedFile.of(sha256, path.stat())
    _hashes_of_this_process()[path.absolute()] = hashed
    _Place.of(path, None).write(hashed)


@cache
def _hashes_of_this_process() -> dict[Path, _HashedFile]:
    return {}


def _read_record(folder: Path) -> Mapping[str, _HashedFile]:
    """Return the hashes in the record of a folder by the names of the files; none if it cannot be read."""
    try:
        content = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        return {str(name): _HashedFile(**hashed) for name, hashed in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _wait_for_another_time(status: os.stat_result) -> None:
    """Wait until a further change of the file would get another time than its last one.

    Otherwise a change directly after the hashing might not be noticed.
    """
    age_ns = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    if 0 <= age_ns < _CLOCK_STEP_NS:
        time.sleep((_CLOCK_STEP_NS - age_ns) / 1e9)
