"""Where the recording of each job lies, and what workers share while they work on one recording together.

In a directory, of this machine or shared by several, or in S3 (``media_s3``). A job's id cannot be guessed, and nothing
of the caller's is part of a path or key.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from diarist.errors import UploadTooLarge

RECORDING = "recording"
PARTS = "parts"
CHUNK_BYTES = 2**20

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_PART = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(\.[a-z0-9]{1,8})?")


class MediaStore(Protocol):
    """Recordings and parts by job. Safe to call from any thread, and from any machine of a fleet.

    Wherever it says ``job_id``, anything that is no id of a job raises ``ValueError``; so does ``name`` where it is not
    lower-case letters, digits, ``_`` and ``-``, with one short suffix at most. Every call raises ``MediaUnavailable``
    where the store does not answer as it should; the message says what to do.
    """

    def check_free_space(self, size_bytes: int) -> None:
        """Raises ``StorageFull`` where ``size_bytes`` more would leave too little."""

    def store_recording(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        """Store a recording: copy a stream from where it stands, or move a file. Its size in bytes.

        Whoever looks sees all of it or nothing; an earlier one of the same job is replaced. Leaves nothing behind where
        it fails. Errors of ``upload.read`` are passed on as they are.

        Raises:
            UploadTooLarge: there is more than ``limit_bytes``.
            StorageFull: there is no room for it.
            MediaMissing: the job was removed meanwhile. Not in every case: whoever removes a job while this runs
                removes it again afterwards.
        """

    def local_recording(self, job_id: str, check: Callable[[], None] | None = None) -> AbstractContextManager[Path]:
        """The recording as a file of this machine, to be read while the context lasts.

        ``tick`` is called again and again where it has to be fetched first, and stops that by raising.

        Raises:
            MediaMissing: there is none.
            StorageFull: this machine has no room for it.
        """

    def store_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        """Store something that was made of the recording, for other workers; a file is copied and stays.

        Whoever looks sees all of it or nothing; an earlier one of the same name is replaced.

        Raises:
            MediaMissing: the job has no recording (any more), so that nothing is left of a job that was removed.
            StorageFull: there is no room for it.
        """

    def read_part(self, job_id: str, name: str) -> bytes:
        """All of a part. Raises ``MediaMissing``."""

    def read_part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        """The bytes from ``first_byte`` up to ``stop_byte``; fewer where the part ends before. Raises as ``part``."""

    def part_names(self, job_id: str) -> frozenset[str]:
        """Names of the parts that there are."""

    def remove_parts(self, job_id: str) -> None:
        """Forget all parts. No error where there are none."""

    def remove_recording(self, job_id: str) -> None:
        """Forget the recording alone. No error where there is none."""

    def remove(self, job_id: str) -> None:
        """Forget everything of a job. No error where there is nothing."""

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        """The jobs of which there is something; with ``with_parts``, of which there are parts."""

    def remove_incomplete(self, older_than: datetime) -> int:
        """Remove what processes left that were killed while they wrote; how many things that were."""

    def probe(self) -> None:
        """Write, read back and delete something. Raises ``ServiceError`` where that does not work."""

    def close(self) -> None:
        """Close connections that it holds. Afterwards it is not used any more."""


def new_job_id() -> str:
    """128 random bits, URL-safe: 22 characters."""
    return secrets.token_urlsafe(16)


def is_job_id(name: str) -> bool:
    """Whether a job can be called that."""
    return _ID.fullmatch(name) is not None


def check_job_id(job_id: str) -> str:
    """The id, if it is one. Raises ``ValueError``."""
    if not is_job_id(job_id):
        raise ValueError(f"{job_id!r} is no job id")
    return job_id


def is_part_name(name: str) -> bool:
    """Whether a part can be called that."""
    return _PART.fullmatch(name) is not None


def check_part_name(name: str) -> str:
    """The name, if a part can have it. Raises ``ValueError``."""
    if not is_part_name(name):
        raise ValueError(f"{name!r} is no name of a part")
    return name


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raises ``UploadTooLarge`` beyond the limit."""
    if size_bytes > limit_bytes:
        raise UploadTooLarge(
            f"The recording is larger than {limit_bytes // 2**20} MB, the most that this service takes. "
            "Send it in a compressed format such as MP3, Opus or FLAC, or in parts; whoever runs the service can raise "
            "MAX_UPLOAD_MB."
        )


def check_range(first_byte: int, stop_byte: int) -> None:
    """Raises ``ValueError`` where that is no range of bytes."""
    if not 0 <= first_byte <= stop_byte:
        raise ValueError(f"{first_byte} to {stop_byte} is no range of bytes")
