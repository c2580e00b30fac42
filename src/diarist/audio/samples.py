"""A growing buffer of samples, which never copies itself and keeps long recordings in a file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from diarist.errors import StorageFull
from diarist.scratch import FreeSpaceGuard, disk_full, unnamed_file
from diarist.types import SAMPLE_RATE, Samples

_MIN_CAPACITY_SAMPLES = 60 * SAMPLE_RATE
_BLOCK_SAMPLES = 60 * SAMPLE_RATE
"""The number of samples of silence that are written at a time."""

_VALUE_BYTES = 4


class SampleBuffer:
    """Mono float32 samples, appended block by block.

    In memory, the buffer grows and shrinks in place: the C library moves the pages of large arrays instead of copying
    them. Unused capacity costs only address space. With more than ``max_in_memory`` samples, all of them go to an
    unlinked temporary file, which the system deletes when the last process that uses it ends.

    Args:
        expected_samples: The number of samples that are expected.
        max_in_memory: The maximum number of samples in memory; None is no limit.
        folder: The folder of the file; None is the system's folder for temporary files.
        min_free_bytes: The space that stays free on the disk of the file.

    Blocks of zeros (digital silence) become holes in the file, which take no space.
    """

    def __init__(
        self,
        expected_samples: int = 0,
        max_in_memory: int | None = None,
        folder: Path | None = None,
        min_free_bytes: int = 0,
    ) -> None:
        self._max_in_memory = max_in_memory
        self._folder = folder
        self._free_space = FreeSpaceGuard(folder, min_free_bytes, "TEMP_AUDIO_DIR or DATA_DIR")
        self._file: IO[bytes] | None = None
        self._length = 0
        fits = max_in_memory is None or expected_samples <= max_in_memory
        self._data: Samples = np.empty(max(expected_samples, _MIN_CAPACITY_SAMPLES) if fits else 0, dtype=np.float32)

    def __len__(self) -> int:
        return self._length

    def append(self, samples: Samples) -> None:
        """Append samples of shape (samples,).

        Raises:
            StorageFull: The disk is full, or less than ``min_free_bytes`` would stay free, or the file cannot be
                created.
        """
        if self._in_memory(len(samples)):
            self._data[self._length : self._length + len(samples)] = samples
        else:
            self._write(samples)
        self._length += len(samples)

    def append_silence(self, samples: int) -> None:
        """Append zeros."""
        for first in range(0, samples, _BLOCK_SAMPLES):
            self.append(np.zeros(min(_BLOCK_SAMPLES, samples - first), dtype=np.float32))

    def take(self) -> Samples:
        """Return all samples, shape (samples,), and empty the buffer. Samples in a file are mapped read-only."""
        data, length, file = self._data, self._length, self._file
        self._data, self._length, self._file = np.empty(0, dtype=np.float32), 0, None
        if file is None:
            data.resize(length, refcheck=False)
            return data
        with file, _storage_errors():  # the mapping keeps the file open
            file.truncate(length * _VALUE_BYTES)  # the end may be a hole
            mapped = mmap.mmap(file.fileno(), length * _VALUE_BYTES, access=mmap.ACCESS_READ)
        return np.ndarray(length, dtype=np.float32, buffer=mapped)

    def close(self) -> None:
        """Discard the samples. This does nothing after ``take``."""
        if self._file is not None:
            self._file.close()
        self._data, self._length, self._file = np.empty(0, dtype=np.float32), 0, None

    def _in_memory(self, more: int) -> bool:
        """Return whether ``more`` samples go to memory, after making room for them."""
        if self._file is not None:
            return False
        needed = self._length + more
        if self._max_in_memory is not None and needed > self._max_in_memory:
            with _storage_errors():
                # The file is unbuffered, so that closing it cannot fail to write.
                self._file = unnamed_file(self._folder)
            self._write(self._data[: self._length])
            self._data = np.empty(0, dtype=np.float32)
            return False
        if needed > len(self._data):
            # No view of the array exists before ``take``, so that none can become invalid.
            self._data.resize(max(needed, len(self._data) * 5 // 4, _MIN_CAPACITY_SAMPLES), refcheck=False)
        return True

    def _write(self, samples: Samples) -> None:
        assert self._file is not None
        with _storage_errors():
            if not samples.any():
                self._file.seek(len(samples) * _VALUE_BYTES, os.SEEK_CUR)
                return
            self._free_space.before_write(len(samples) * _VALUE_BYTES)
            remaining = memoryview(np.ascontiguousarray(samples, dtype=np.float32).tobytes())
            while remaining:
                remaining = remaining[self._file.write(remaining) :]


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise StorageFull(
                "The disk became full while the recording was decoded. A long recording needs 230 MB per hour until "
                "it is done. Free space in the folder for temporary files (DATA_DIR or, if it is set, TEMP_AUDIO_DIR "
                "for the service, otherwise TMPDIR), and send the recording again."
            ) from error
        raise StorageFull(
            f"The samples of a long recording cannot be stored in the folder for temporary files ({error}). Make it "
            "writable, or set another folder by TEMP_AUDIO_DIR for the service, otherwise by TMPDIR."
        ) from error
