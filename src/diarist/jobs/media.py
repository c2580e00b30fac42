"""The private folder of each job: ``<root>/<job id>/recording``, readable by this user alone.

The name of the folder cannot be guessed and nothing of the caller's is part of a path.
"""

from __future__ import annotations

import errno
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diarist.errors import StorageFull, UploadTooLarge

RECORDING = "recording"
CHUNK_BYTES = 2**20

_ID = re.compile(r"[A-Za-z0-9_-]{22}")


def new_job_id() -> str:
    """128 random bits, URL-safe: 22 characters."""
    return secrets.token_urlsafe(16)


class MediaStore:
    """Keeps recordings under ``root``, and ``min_free_bytes`` of its disk free."""

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes

    def recording(self, job_id: str) -> Path:
        """Where the recording of a job is, or would be."""
        return self._folder(job_id) / RECORDING

    def check_room(self, size_bytes: int) -> None:
        """Raises ``StorageFull`` where ``size_bytes`` more would leave too little."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < size_bytes + self._min_free_bytes:
            raise StorageFull(
                f"The service has too little disk space for this recording ({free_bytes // 2**20} MB are free, and "
                f"{self._min_free_bytes // 2**20} MB must stay so). Try again later; whoever runs the service can free "
                "space in DATA_DIR or lower MIN_FREE_MB."
            )

    def keep(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        """Store an upload: copy a stream from where it stands, or move a file. Its size in bytes.

        Leaves nothing behind where it fails.

        Raises:
            UploadTooLarge: there is more than ``limit_bytes``.
            StorageFull: the disk is full.
        """
        target = self.recording(job_id)
        with _room():
            target.parent.mkdir(parents=True, mode=0o700)
        try:
            with _room():
                return (
                    _move(upload, target, limit_bytes)
                    if isinstance(upload, Path)
                    else _copy(upload, target, limit_bytes)
                )
        except BaseException:
            self.remove(job_id)
            raise

    def remove(self, job_id: str) -> None:
        """Forget a recording. No error where there is none.

        Raises:
            OSError: it is there and cannot be removed.
        """
        try:
            shutil.rmtree(self._folder(job_id))
        except FileNotFoundError:
            return

    def job_ids(self) -> frozenset[str]:
        """The jobs that have a folder."""
        if not self._root.is_dir():
            return frozenset()
        return frozenset(entry.name for entry in self._root.iterdir() if _ID.fullmatch(entry.name))

    def _folder(self, job_id: str) -> Path:
        if not _ID.fullmatch(job_id):
            raise ValueError(f"{job_id!r} is no job id")
        return self._root / job_id


def _copy(upload: BinaryIO, target: Path, limit_bytes: int) -> int:
    size_bytes = 0
    with target.open("xb") as file:
        while chunk := upload.read(CHUNK_BYTES):
            size_bytes += len(chunk)
            _check_size(size_bytes, limit_bytes)
            file.write(chunk)
    return size_bytes


def _move(upload: Path, target: Path, limit_bytes: int) -> int:
    size_bytes = upload.stat().st_size
    _check_size(size_bytes, limit_bytes)
    shutil.move(upload, target)
    return size_bytes


def _check_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise UploadTooLarge(
            f"The recording is larger than {limit_bytes // 2**20} MB, the most that this service takes. "
            "Send it in a compressed format such as MP3, Opus or FLAC, or in parts; whoever runs the service can raise "
            "MAX_UPLOAD_MB."
        )


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(
                "The disk of the service ran full while it stored the recording. Try again later; whoever runs the "
                "service can free space in DATA_DIR."
            ) from error
        raise
