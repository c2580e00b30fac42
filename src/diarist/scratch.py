"""Temporary files and folders: their names, who may read them, which are in use, and when they are removed.

The service and the workers put temporary files of recordings into TEMP_AUDIO_DIR. Only the user who runs the process
can read them. A file that is used for longer than it takes to write it is locked (``diarist.system.file_lock``), and a
folder has the ID of its process in its name, so that a sweep can distinguish what is in use from what a killed process
left.

Two kinds of temporary file are not here, because they have to be renamed in the folder that they lie in: those of the
directory of recordings (``diarist.jobs.media.directory``) and the transcripts of the command line.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO

from diarist.errors import ConfigurationError, MediaUnavailable, StorageFull
from diarist.system.file_lock import locked, remove_unlocked
from diarist.system.file_replacement import remove_file

UPLOAD_PREFIX = "diarist-upload-"
"""Uploads that are being received."""

DOWNLOAD_PREFIX = "diarist-fetch-"
"""Recordings that are being downloaded from a URL."""

SHARED_SAMPLES_PREFIX = "diarist-samples-"
"""Samples of a long recording on their way to other workers."""

S3_COPY_PREFIX = "recording-"
"""Copies of recordings in S3 that a worker of this machine reads."""

PIPED_PREFIX = "diarist-input-"
"""Recordings that the command line received from a pipe."""

NEMO_PREFIX = "diarist-nemo-"
"""Folders of unpacked NeMo models."""

DOCTOR_PREFIX = "diarist-doctor-"
"""Folders of the recording that ``diarist doctor`` decodes."""

PULL_PREFIX = ".pull-"
"""Folders in MODEL_DIR of models that are being downloaded."""

EXPORT_PREFIX = ".export-"
"""Folders of models that are being exported, beside the finished ones."""

REPLACED_PREFIX = ".replaced-"
"""Exported models that a new export has just replaced."""

CHECK_INTERVAL_BYTES = 16 * 2**20
"""The free space of a disk is checked each time this much was written."""

SWEPT_PREFIXES = (UPLOAD_PREFIX, DOWNLOAD_PREFIX, SHARED_SAMPLES_PREFIX)
"""The files that are swept in a TEMP_AUDIO_DIR that the operator chose, which may hold files of other programs."""


def disk_full(error: OSError) -> bool:
    """Return whether there is no space left on the disk, for this user, or for a file of this size."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_full_errors(activity: str, setting: str) -> Iterator[None]:
    """Raise ``StorageFull`` in place of the ``OSError`` of a full disk.

    Args:
        activity: what the disk ran full during, as the end of "The disk ran full while".
        setting: the settings that name folders on that disk.

    Raises:
        StorageFull: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise storage_full(activity, setting) from error
        raise


def storage_full(activity: str, setting: str) -> StorageFull:
    """Return the error of a disk that ran full; the arguments are those of ``disk_full_errors``."""
    return StorageFull(
        f"The disk ran full while {activity}. Try again later; the operator of the service can free space in {setting}."
    )


def check_free_space(folder: Path, size_bytes: int, min_free_bytes: int, setting: str) -> None:
    """Check that a recording of ``size_bytes`` leaves ``min_free_bytes`` free on the disk of ``folder``.

    ``setting`` names the settings of the folder, for the message.

    Raises:
        StorageFull: there is too little space.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes + min_free_bytes:
        raise StorageFull(
            f"The service has too little disk space for this recording ({free_bytes // 2**20} MB are free, and "
            f"{min_free_bytes // 2**20} MB must stay free). Try again later; the operator of the service can free "
            f"space in {setting} or lower MIN_FREE_MB."
        )


class FreeSpaceGuard:
    """Checks the free space of a disk while a file is written there, so that ``min_free_bytes`` stay free.

    Args:
        folder: the folder of the file; None is the default folder of this process.
        min_free_bytes: the space that must stay free; with 0 nothing is checked.
        setting: names the settings of the folder, for the message.
    """

    def __init__(self, folder: Path | None, min_free_bytes: int, setting: str) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._setting = setting
        self._unchecked_bytes = CHECK_INTERVAL_BYTES

    def before_write(self, size_bytes: int) -> None:
        """Check the space before the first write, and then each time that ``CHECK_INTERVAL_BYTES`` were written.

        Raises:
            StorageFull: there is too little space.
        """
        self._unchecked_bytes += size_bytes
        if self._min_free_bytes and self._unchecked_bytes >= CHECK_INTERVAL_BYTES:
            folder = Path(tempfile.gettempdir()) if self._folder is None else self._folder
            check_free_space(folder, size_bytes, self._min_free_bytes, self._setting)
            self._unchecked_bytes = 0


def make_private_folder(folder: Path) -> None:
    """Create a folder that only this user can read, and its parents, unless it exists."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def check_writable(folder: Path, size_bytes: int = 0) -> None:
    """Write a temporary file of ``size_bytes`` to ``folder``. Raises ``OSError`` if that fails."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(size_bytes))


def prepare_temp_dir(folder: Path) -> None:
    """Create the folder for temporary files, and check that files can be written to it.

    Raises:
        ConfigurationError: the folder cannot be created or written.
    """
    try:
        make_private_folder(folder)
        check_writable(folder)
    except OSError as error:
        raise ConfigurationError(
            f"TEMP_AUDIO_DIR {folder} cannot be written ({error.strerror}). Let this user own it, or set it, or "
            "DATA_DIR, to a folder that can be written."
        ) from error


def check_temp_dir(folder: Path, min_free_bytes: int) -> None:
    """Check that the folder for temporary files can be used, and create it if somebody removed it.

    Raises:
        StorageFull: less than ``min_free_bytes`` are free.
        MediaUnavailable: the folder cannot be created or written.
    """
    try:
        make_private_folder(folder)
        check_free_space(folder, 0, min_free_bytes, "TEMP_AUDIO_DIR or DATA_DIR")
        check_writable(folder, 1)
    except OSError as error:
        if disk_full(error):
            raise storage_full("its free space was checked", "TEMP_AUDIO_DIR or DATA_DIR") from error
        raise unusable_temp_dir(folder, error) from error


def unusable_temp_dir(folder: Path, error: OSError) -> MediaUnavailable:
    """Return the error of a folder for temporary files that cannot be written while the service runs."""
    return MediaUnavailable(
        f"TEMP_AUDIO_DIR {folder} cannot be written ({error.strerror}). Let this user own it, and check its disk.",
        public="The service cannot store recordings at the moment: its folder for temporary files cannot be written. "
        "Try again later; the log of the service says why.",
    )


def clear_temp_dir(folder: Path) -> None:
    """Remove everything in a folder that belongs to the service alone and that no other process uses."""
    shutil.rmtree(folder, ignore_errors=True)
    make_private_folder(folder)


@contextmanager
def default_temp_dir(folder: Path) -> Iterator[None]:
    """Make ``folder`` the one for all temporary files of this process, including those that libraries create."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder.resolve())
    try:
        yield
    finally:
        tempfile.tempdir = before


def create_file(folder: Path | None, prefix: str) -> tuple[BinaryIO, Path]:
    """Create a file that only this user can read, and open it for reading and writing.

    The caller removes it. ``folder`` is created unless it exists; None is the default folder of this process.
    """
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=_existing(folder))
    return os.fdopen(descriptor, "w+b"), Path(name)


@contextmanager
def locked_file(folder: Path | None, prefix: str) -> Iterator[Path]:
    """Create an empty file that only this user can read; it is locked until the context ends, and then removed.

    A file that was moved away meanwhile stays where it is. ``folder`` is created unless it exists; None is the default
    folder of this process.
    """
    file, path = create_file(folder, prefix)
    try:
        with locked(file, path):
            yield path
    finally:
        remove_file(path)


def unnamed_file(folder: Path | None) -> IO[bytes]:
    """Open an unbuffered file without a name, which the system removes when the last process closes it.

    ``folder`` is created unless it exists; None is the default folder of this process.
    """
    return tempfile.TemporaryFile(buffering=0, dir=_existing(folder))


@contextmanager
def process_folder(prefix: str) -> Iterator[Path]:
    """Create a folder named after this process in the default temporary folder, and remove it at the end.

    Folders with the same prefix that killed processes left are removed first.
    """
    import psutil

    for path in _existing(None).glob(f"{prefix}*-*"):
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-") as name:
        yield Path(name)


@contextmanager
def staging_folder(parent: Path, prefix: str, *left_prefixes: str) -> Iterator[Path]:
    """Create a folder in ``parent``, whose contents are to be renamed into it, and remove it at the end.

    The caller holds a lock on ``parent``. All folders with ``prefix``, or one of ``left_prefixes``, are therefore left
    over from killed processes, and are removed first.
    """
    for each in (prefix, *left_prefixes):
        for path in parent.glob(f"{each}*"):
            shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, before: datetime, prefixes: Collection[str] | None = None) -> int:
    """Remove files of ``folder`` that were last written ``before`` and that no process has locked.

    Links and folders stay, and so do files that this user may not remove.

    Args:
        folder: need not exist.
        before: a time with a time zone.
        prefixes: only files whose names begin with one of these are removed; all files if None.

    Returns:
        The number of files that were removed.
    """
    try:
        paths = tuple(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except FileNotFoundError:
        return 0
    return sum(
        _remove_unused(path, before) for path in paths if prefixes is None or path.name.startswith(tuple(prefixes))
    )


def _remove_unused(path: Path, before: datetime) -> bool:
    with suppress(FileNotFoundError, PermissionError):
        return path.stat().st_mtime < before.timestamp() and remove_unlocked(path)
    return False


def _existing(folder: Path | None) -> Path:
    """Return the folder, or else the default one of this process, after it was created if somebody removed it."""
    existing = Path(tempfile.gettempdir()) if folder is None else folder
    make_private_folder(existing)
    return existing
