"""Where the recording of each job lies, and what workers share while they work on one recording together.

In a directory, of this machine or shared by several, or in S3 (``media_s3``). A job's id cannot be guessed, and nothing
of the caller's is part of a path or key.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from diarist.errors import MediaMissing, MediaUnavailable, ServiceError, StorageFull, UploadTooLarge
from diarist.jobs.model import check_job_id, is_job_id
from diarist.scratch import disk_full
from diarist.settings import Settings

RECORDING = "recording"
PARTS = "parts"
CHUNK_BYTES = 2**20

_PARTIAL = ".partial-"
_REMOVED = ".removed-"
_PROBE = ".probe-"
_PART = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(\.[a-z0-9]{1,8})?")


class MediaStore(Protocol):
    """Recordings and parts by job. Safe to call from any thread, and from any machine of a fleet.

    Wherever it says ``job_id``, anything that is no id of a job raises ``ValueError``; so does ``name`` where it is not
    lower-case letters, digits, ``_`` and ``-``, with one short suffix at most. Every call raises ``MediaUnavailable``
    where the store does not answer as it should; the message says what to do.
    """

    def check_room(self, size_bytes: int) -> None:
        """Raises ``StorageFull`` where ``size_bytes`` more would leave too little."""

    def keep(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        """Store a recording: copy a stream from where it stands, or move a file. Its size in bytes.

        Whoever looks sees all of it or nothing; an earlier one of the same job is replaced. Leaves nothing behind where
        it fails. Errors of ``upload.read`` are passed on as they are.

        Raises:
            UploadTooLarge: there is more than ``limit_bytes``.
            StorageFull: there is no room for it.
            MediaMissing: the job was removed meanwhile. Not in every case: whoever removes a job while this runs
                removes it again afterwards.
        """

    def local(self, job_id: str, tick: Callable[[], None] | None = None) -> AbstractContextManager[Path]:
        """The recording as a file of this machine, to be read while the context lasts.

        ``tick`` is called again and again where it has to be fetched first, and stops that by raising.

        Raises:
            MediaMissing: there is none.
            StorageFull: this machine has no room for it.
        """

    def keep_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        """Store something that was made of the recording, for other workers; a file is copied and stays.

        Whoever looks sees all of it or nothing; an earlier one of the same name is replaced.

        Raises:
            MediaMissing: the job has no recording (any more), so that nothing is left of a job that was removed.
            StorageFull: there is no room for it.
        """

    def part(self, job_id: str, name: str) -> bytes:
        """All of a part. Raises ``MediaMissing``."""

    def part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        """The bytes from ``first_byte`` up to ``stop_byte``; fewer where the part ends before. Raises as ``part``."""

    def parts(self, job_id: str) -> frozenset[str]:
        """Names of the parts that there are."""

    def remove_parts(self, job_id: str) -> None:
        """Forget all parts. No error where there are none."""

    def remove_recording(self, job_id: str) -> None:
        """Forget the recording alone. No error where there is none."""

    def remove(self, job_id: str) -> None:
        """Forget everything of a job. No error where there is nothing."""

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        """The jobs of which there is something; with ``with_parts``, of which there are parts."""

    def clean(self, older_than: datetime) -> int:
        """Remove what processes left that were killed while they wrote; how many things that were."""

    def probe(self) -> None:
        """Write, read back and delete something. Raises ``ServiceError`` where that does not work."""

    def close(self) -> None:
        """Close connections that it holds. Afterwards it is not used any more."""


def open_media(settings: Settings) -> MediaStore:
    """The recordings of this installation.

    Raises:
        ConfigurationError: MEDIA_URL or the S3 settings cannot be used, or the library for S3 is missing.
    """
    min_free_bytes = settings.min_free_mb * 2**20
    if not settings.in_s3:
        return DirectoryMedia(settings.media_dir, min_free_bytes)
    from diarist.jobs.media.s3 import open_s3

    return open_s3(settings, min_free_bytes)


def check_part_name(name: str) -> str:
    """The name, if a part can have it. Raises ``ValueError``."""
    if not _PART.fullmatch(name):
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


def check_disk(folder: Path, size_bytes: int, min_free_bytes: int, setting: str) -> None:
    """Raises ``StorageFull`` where the disk of ``folder`` has less than both; ``setting`` says where it is named."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes + min_free_bytes:
        raise StorageFull(
            f"The service has too little disk space for this recording ({free_bytes // 2**20} MB are free, and "
            f"{min_free_bytes // 2**20} MB must stay so). Try again later; whoever runs the service can free "
            f"space in {setting} or lower MIN_FREE_MB."
        )


class DirectoryMedia:
    """``<root>/<job id>/recording`` and ``<root>/<job id>/parts/<name>``, readable by this user alone.

    Keeps ``min_free_bytes`` of the disk free. What is being written has a name of its own until it is whole.
    """

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes

    def recording(self, job_id: str) -> Path:
        """Where the recording of a job is, or would be."""
        return self._folder(job_id) / RECORDING

    def check_room(self, size_bytes: int) -> None:
        with self._explained():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_disk(self._root, size_bytes, self._min_free_bytes, "DATA_DIR or MEDIA_URL")

    def keep(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        target = self.recording(job_id)
        with self._explained():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            return (
                self._move(upload, target, limit_bytes)
                if isinstance(upload, Path)
                else self._copy(upload, target, limit_bytes)
            )
        except BaseException:
            with suppress(OSError):
                target.parent.rmdir()  # only where nothing else is in it
            raise

    @contextmanager
    def local(self, job_id: str, tick: Callable[[], None] | None = None) -> Iterator[Path]:  # noqa: ARG002
        path = self.recording(job_id)
        with self._explained():
            if not path.is_file():
                raise self._no_recording(job_id)
        yield path

    def keep_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        recording, target = self.recording(job_id), self._part(job_id, name)
        with self._explained():
            if not recording.is_file():
                raise self._no_recording(job_id)
            target.parent.mkdir(exist_ok=True, mode=0o700)
            with self._partial(recording.parent) as partial:
                if isinstance(source, Path):
                    shutil.copyfile(source, partial)
                else:
                    partial.write_bytes(source)
                partial.replace(target)

    def part(self, job_id: str, name: str) -> bytes:
        with self._explained(f"The part {name} of job {job_id} is not there."):
            return self._part(job_id, name).read_bytes()

    def part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        check_range(first_byte, stop_byte)
        with (
            self._explained(f"The part {name} of job {job_id} is not there."),
            self._part(job_id, name).open("rb") as file,
        ):
            file.seek(first_byte)
            return file.read(stop_byte - first_byte)

    def parts(self, job_id: str) -> frozenset[str]:
        folder = self._folder(job_id) / PARTS
        with self._explained():
            try:
                return frozenset(entry.name for entry in os.scandir(folder) if _PART.fullmatch(entry.name))
            except FileNotFoundError:
                return frozenset()

    def remove_parts(self, job_id: str) -> None:
        self._remove_folder(self._folder(job_id) / PARTS)

    def remove_recording(self, job_id: str) -> None:
        path = self.recording(job_id)
        with self._removing(path):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()  # only where nothing else is in it

    def remove(self, job_id: str) -> None:
        self._remove_folder(self._folder(job_id))

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        with self._explained():
            found = [entry for entry in self._entries() if is_job_id(entry.name)]
            return frozenset(entry.name for entry in found if not with_parts or (entry / PARTS).is_dir())

    def clean(self, older_than: datetime) -> int:
        with self._explained():
            found = self._entries()
            left = [entry for entry in found if entry.name.startswith(_REMOVED)]
            left += [entry for entry in found if entry.name.startswith(_PROBE) and _before(entry, older_than)]
            for folder in found:
                if is_job_id(folder.name):
                    left += _left_in(folder, older_than)
            for path in left:
                with suppress(FileNotFoundError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return len(left)

    def probe(self) -> None:
        said = secrets.token_bytes(16)
        path = self._root / f"{_PROBE}{secrets.token_hex(8)}"
        with self._explained():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                path.write_bytes(said)
                same = path.read_bytes() == said
            finally:
                path.unlink(missing_ok=True)
        if not same:
            raise MediaUnavailable(f"The folder {self._root} gives back other bytes than were written. Check its disk.")

    def close(self) -> None:
        """There is nothing to close."""

    def _folder(self, job_id: str) -> Path:
        return self._root / check_job_id(job_id)

    def _part(self, job_id: str, name: str) -> Path:
        return self._folder(job_id) / PARTS / check_part_name(name)

    def _entries(self) -> list[Path]:
        return list(self._root.iterdir()) if self._root.is_dir() else []

    def _copy(self, upload: BinaryIO, target: Path, limit_bytes: int) -> int:
        # What the stream raises is the sender's, so it is read outside of _explained.
        size_bytes = 0
        with self._partial(target.parent) as partial:
            with self._explained():
                file = partial.open("xb")
            try:
                while chunk := upload.read(CHUNK_BYTES):
                    size_bytes += len(chunk)
                    check_size(size_bytes, limit_bytes)
                    with self._explained():
                        file.write(chunk)
            finally:
                with self._explained():
                    file.close()
            with self._explained():
                partial.replace(target)
        return size_bytes

    def _move(self, upload: Path, target: Path, limit_bytes: int) -> int:
        size_bytes = upload.stat().st_size
        check_size(size_bytes, limit_bytes)
        with self._explained():
            try:
                upload.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with self._partial(target.parent) as partial:
                    shutil.copyfile(upload, partial)
                    partial.replace(target)
                upload.unlink()
        return size_bytes

    @contextmanager
    def _partial(self, folder: Path) -> Iterator[Path]:
        """A path for what is being written: renamed inside, or else removed."""
        path = folder / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def _remove_folder(self, folder: Path) -> None:
        # Renamed first: it is gone at once, and nobody writes into it while it is emptied.
        aside = self._root / f"{_REMOVED}{secrets.token_hex(8)}"
        with self._removing(folder):
            try:
                folder.rename(aside)
            except FileNotFoundError:
                return
            with suppress(FileNotFoundError):
                shutil.rmtree(aside)

    @contextmanager
    def _removing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MediaUnavailable(
                f"{path} cannot be removed ({error.strerror}). Let the user who runs the service own it, and see that "
                "its disk is not read-only: it is tried again from time to time."
            ) from error

    @contextmanager
    def _explained(self, missing: str = "The job was removed while its files were written.") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MediaMissing(missing) from error
        except OSError as error:
            raise self._explain(error) from error

    def _explain(self, error: OSError) -> ServiceError:
        if disk_full(error):
            return StorageFull(
                "The disk of the service ran full while it stored the recording. Try again later; whoever runs the "
                "service can free space in DATA_DIR or MEDIA_URL."
            )
        return MediaUnavailable(
            f"The folder of recordings {self._root} cannot be read or written ({error.strerror}). Let the user who "
            "runs the service own it, see that it is mounted, or set MEDIA_URL or DATA_DIR to another one."
        )

    def _no_recording(self, job_id: str) -> MediaMissing:
        return MediaMissing(
            f"The recording of job {job_id} is not in {self._root} on this machine: it was removed, or MEDIA_URL does "
            "not name one folder that all machines share."
        )


def check_range(first_byte: int, stop_byte: int) -> None:
    """Raises ``ValueError`` where that is no range of bytes."""
    if not 0 <= first_byte <= stop_byte:
        raise ValueError(f"{first_byte} to {stop_byte} is no range of bytes")


def _left_in(folder: Path, older_than: datetime) -> list[Path]:
    """Half-written files of a job, or its whole folder where there is nothing else in it."""
    try:
        inside = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    left = [path for path in inside if path.name.startswith(_PARTIAL) and _before(path, older_than)]
    return [folder] if len(left) == len(inside) and _before(folder, older_than) else left


def _before(path: Path, time: datetime) -> bool:
    try:
        return path.stat().st_mtime < time.timestamp()
    except FileNotFoundError:
        return False
