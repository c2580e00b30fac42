"""A media store in a directory, which may be shared by several machines."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from diarist import scratch
from diarist.errors import MediaMissing, MediaUnavailable, ServiceError
from diarist.jobs.media.base import (
    CHUNK_BYTES,
    PARTS,
    RECORDING,
    check_part_name,
    check_range,
    check_size,
    is_part_name,
)
from diarist.jobs.model import check_job_id, is_job_id
from diarist.system.file_replacement import remove_file, replace_file

_PARTIAL = ".partial-"
_REMOVED = ".removed-"
_PROBE = ".probe-"


class DirectoryMedia:
    """A ``MediaStore`` with the files ``<root>/<job ID>/recording`` and ``<root>/<job ID>/parts/<name>``.

    Only this user can read the files, and ``min_free_bytes`` of the disk stay free. A file has a temporary name until
    it is complete.
    """

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes

    def recording(self, job_id: str) -> Path:
        """Return the path of the recording of a job, which need not exist."""
        return self._folder(job_id) / RECORDING

    def check_free_space(self, size_bytes: int) -> None:
        with self._translated_errors():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            scratch.check_free_space(self._root, size_bytes, self._min_free_bytes, "DATA_DIR or MEDIA_URL")

    def store_recording(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        target = self.recording(job_id)
        with self._translated_errors():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_folder(target.parent)
        try:
            return (
                self._move(upload, target, limit_bytes)
                if isinstance(upload, Path)
                else self._copy(upload, target, limit_bytes)
            )
        except BaseException:
            with suppress(OSError):
                target.parent.rmdir()  # fails if the folder is not empty
            raise

    @contextmanager
    def local_recording(self, job_id: str, check: Callable[[], None] | None = None) -> Iterator[Path]:  # noqa: ARG002
        path = self.recording(job_id)
        with self._translated_errors():
            if not path.is_file():
                raise self._no_recording(job_id)
        yield path

    def store_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        recording, target = self.recording(job_id), self._part(job_id, name)
        with self._translated_errors():
            if not recording.is_file():
                raise self._no_recording(job_id)
            _make_folder(target.parent)
            with self._partial(recording.parent) as partial:
                if isinstance(source, Path):
                    self.check_free_space(source.stat().st_size)
                    shutil.copyfile(source, partial)
                else:
                    partial.write_bytes(source)
                replace_file(partial, target)

    def read_part(self, job_id: str, name: str) -> bytes:
        with self._translated_errors(f"The part {name} of job {job_id} does not exist."):
            return self._part(job_id, name).read_bytes()

    def read_part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        check_range(first_byte, stop_byte)
        with (
            self._translated_errors(f"The part {name} of job {job_id} does not exist."),
            self._part(job_id, name).open("rb") as file,
        ):
            file.seek(first_byte)
            return file.read(stop_byte - first_byte)

    def part_names(self, job_id: str) -> frozenset[str]:
        folder = self._folder(job_id) / PARTS
        with self._translated_errors():
            try:
                return frozenset(entry.name for entry in os.scandir(folder) if is_part_name(entry.name))
            except FileNotFoundError:
                return frozenset()

    def remove_parts(self, job_id: str) -> None:
        self._remove_folder(self._folder(job_id) / PARTS)

    def remove_recording(self, job_id: str) -> None:
        path = self.recording(job_id)
        with self._removing(path):
            remove_file(path)
        with suppress(OSError):
            path.parent.rmdir()  # fails if the folder is not empty

    def remove(self, job_id: str) -> None:
        self._remove_folder(self._folder(job_id))

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        with self._translated_errors():
            found = [entry for entry in self._entries() if is_job_id(entry.name)]
            return frozenset(entry.name for entry in found if not with_parts or (entry / PARTS).is_dir())

    def remove_incomplete(self, older_than: datetime) -> int:
        with self._translated_errors():
            found = self._entries()
            incomplete = [entry for entry in found if entry.name.startswith(_REMOVED)]
            incomplete += [entry for entry in found if entry.name.startswith(_PROBE) and _is_older(entry, older_than)]
            for folder in found:
                if is_job_id(folder.name):
                    incomplete += _incomplete_in(folder, older_than)
            for path in incomplete:
                with suppress(FileNotFoundError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return len(incomplete)

    def probe(self) -> None:
        content = secrets.token_bytes(16)
        path = self._root / f"{_PROBE}{secrets.token_hex(8)}"
        with self._translated_errors():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                path.write_bytes(content)
                identical = path.read_bytes() == content
            finally:
                path.unlink(missing_ok=True)
        if not identical:
            raise MediaUnavailable(f"The folder {self._root} returned other bytes than were written. Check its disk.")

    def close(self) -> None:
        """Do nothing: a directory needs no connection."""

    def _folder(self, job_id: str) -> Path:
        return self._root / check_job_id(job_id)

    def _part(self, job_id: str, name: str) -> Path:
        return self._folder(job_id) / PARTS / check_part_name(name)

    def _entries(self) -> list[Path]:
        return list(self._root.iterdir()) if self._root.is_dir() else []

    def _copy(self, upload: BinaryIO, target: Path, limit_bytes: int) -> int:
        # Errors of the stream are the sender's, so they are not translated.
        size_bytes = 0
        with self._partial(target.parent) as partial:
            with self._translated_errors():
                file = partial.open("xb")
            try:
                while chunk := upload.read(CHUNK_BYTES):
                    size_bytes += len(chunk)
                    check_size(size_bytes, limit_bytes)
                    with self._translated_errors():
                        file.write(chunk)
            finally:
                with self._translated_errors():
                    file.close()
            with self._translated_errors():
                replace_file(partial, target)
        return size_bytes

    def _move(self, upload: Path, target: Path, limit_bytes: int) -> int:
        size_bytes = upload.stat().st_size
        check_size(size_bytes, limit_bytes)
        with self._translated_errors():
            try:
                replace_file(upload, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with self._partial(target.parent) as partial:
                    shutil.copyfile(upload, partial)
                    replace_file(partial, target)
                upload.unlink()
        return size_bytes

    @contextmanager
    def _partial(self, folder: Path) -> Iterator[Path]:
        """Provide a temporary path in ``folder``; the file is removed at the end unless it was renamed."""
        path = folder / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def _remove_folder(self, folder: Path) -> None:
        # The folder is renamed first, so that nobody writes to it while it is being emptied.
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
                f"{path} cannot be removed ({error.strerror}). The user who runs the service has to own it, and its "
                "disk must not be read-only. Removing it is retried regularly."
            ) from error

    @contextmanager
    def _translated_errors(self, missing: str = "The job was removed while its files were written.") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MediaMissing(missing) from error
        except OSError as error:
            raise self._service_error(error) from error

    def _service_error(self, error: OSError) -> ServiceError:
        if scratch.disk_full(error):
            return scratch.storage_full("the recording was stored", "DATA_DIR or MEDIA_URL")
        return MediaUnavailable(
            f"The folder of recordings {self._root} cannot be read or written ({error.strerror}). Make the user who "
            "runs the service its owner, check that it is mounted, or set MEDIA_URL or DATA_DIR to another folder."
        )

    def _no_recording(self, job_id: str) -> MediaMissing:
        return MediaMissing(
            f"The recording of job {job_id} is not in {self._root} on this machine: it was removed, or MEDIA_URL is "
            "not a folder that all machines share."
        )


def _make_folder(path: Path) -> None:
    # Not mkdir(exist_ok=True): that raises FileExistsError if the folder is removed before it checks what exists.
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


def _incomplete_in(folder: Path, older_than: datetime) -> list[Path]:
    """Return the incomplete files of a job, or its folder if it contains nothing else."""
    try:
        inside = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    incomplete = [path for path in inside if path.name.startswith(_PARTIAL) and _is_older(path, older_than)]
    return [folder] if len(incomplete) == len(inside) and _is_older(folder, older_than) else incomplete


def _is_older(path: Path, time: datetime) -> bool:
    try:
        return path.stat().st_mtime < time.timestamp()
    except FileNotFoundError:
        return False
