"""The interface of media stores, which hold recordings of jobs and the parts that workers share, and common checks.

Job IDs cannot be guessed, and no path or key contains anything that comes from a caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from diarist.errors import UploadTooLarge

RECORDING = "recording"
PARTS = "parts"
CHUNK_BYTES = 2**20

_PART = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(\.[a-z0-9]{1,8})?")


class MediaStore(Protocol):
    """Stores recordings and parts by job. It can be used by any thread, and by all machines of a fleet.

    A ``job_id`` that is not the ID of a job raises ``ValueError``. So does a ``name`` that has other characters than
    lower-case letters, digits, ``_`` and ``-``, except for one short suffix. Every call raises ``MediaUnavailable`` if
    the store fails; the message says what to do.
    """

    def check_free_space(self, size_bytes: int) -> None:
        """Raise ``StorageFull`` if storing ``size_bytes`` more would leave too little free space."""

    def store_recording(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        """Store a recording, and return its size in bytes: copy a stream from its position, or move a file.

        The recording appears at once or not at all, and replaces an earlier one of the same job. Nothing is left if
        this fails. Errors of ``upload.read`` are not translated.

        Raises:
            UploadTooLarge: there are more than ``limit_bytes``.
            StorageFull: there is not enough free space.
            MediaMissing: the job was removed meanwhile. This is not always detected: code that removes a job while
                this runs has to remove it again afterwards.
        """

    def local_recording(self, job_id: str, check: Callable[[], None] | None = None) -> AbstractContextManager[Path]:
        """Provide the recording as a file of this machine, which can be read until the context ends.

        ``check`` is called repeatedly while the recording is copied; an exception that it raises stops the copying.

        Raises:
            MediaMissing: there is no recording.
            StorageFull: this machine has not enough free space.
        """

    def store_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        """Store data derived from the recording for other workers; a file is copied.

        The part appears at once or not at all, and replaces an earlier one of the same name.

        Raises:
            MediaMissing: the job has no recording. This ensures that nothing is left of a job that was removed.
            StorageFull: there is not enough free space.
        """

    def read_part(self, job_id: str, name: str) -> bytes:
        """Return a whole part. Raises ``MediaMissing``."""

    def read_part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        """Return the bytes from ``first_byte`` up to ``stop_byte``, or to the end. Raises ``MediaMissing``."""

    def part_names(self, job_id: str) -> frozenset[str]:
        """Return the names of the parts of a job."""

    def remove_parts(self, job_id: str) -> None:
        """Remove all parts of a job. It is not an error if there are none."""

    def remove_recording(self, job_id: str) -> None:
        """Remove the recording of a job, but not its parts. It is not an error if there is none."""

    def remove(self, job_id: str) -> None:
        """Remove the recording and the parts of a job. It is not an error if there are none."""

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        """Return the IDs of the jobs that have a recording or parts, or only of those that have parts."""

    def remove_incomplete(self, older_than: datetime) -> int:
        """Remove what killed processes left while they wrote, and return the number of removed items."""

    def probe(self) -> None:
        """Write, read and delete a test object. Raises ``ServiceError`` if that fails."""

    def close(self) -> None:
        """Close the connections of the store, which cannot be used afterwards."""


def is_part_name(name: str) -> bool:
    """Return whether ``name`` is a valid name of a part."""
    return _PART.fullmatch(name) is not None


def check_part_name(name: str) -> str:
    """Return the name of a part. Raises ``ValueError`` if it is not valid."""
    if not is_part_name(name):
        raise ValueError(f"{name!r} is not a valid name of a part")
    return name


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raise ``UploadTooLarge`` if a recording is larger than the limit."""
    if size_bytes > limit_bytes:
        raise UploadTooLarge(
            f"The recording is larger than {limit_bytes // 2**20} MB, the limit of this service. Send it in a "
            "compressed format such as MP3, Opus or FLAC, or in parts; the operator of the service can raise "
            "MAX_UPLOAD_MB."
        )


def check_range(first_byte: int, stop_byte: int) -> None:
    """Raise ``ValueError`` if this is not a range of bytes."""
    if not 0 <= first_byte <= stop_byte:
        raise ValueError(f"{first_byte} to {stop_byte} is not a range of bytes")
