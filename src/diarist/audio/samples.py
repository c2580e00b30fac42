"""A growing row of samples that never holds two copies of itself, and of a long recording none in memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from diarist.errors import StorageFull
from diarist.scratch import disk_full
from diarist.types import SAMPLE_RATE, Samples

_MIN_CAPACITY_SAMPLES = 60 * SAMPLE_RATE
_BLOCK_SAMPLES = 60 * SAMPLE_RATE
"""What is written of silence at a time."""

_VALUE_BYTES = 4


class SampleBuffer:
    """Mono float32 samples, appended block by block.

    In memory, growing and trimming resize in place: for large rows the C library moves pages, it does not copy them.
    Untouched room costs address space alone. Beyond ``max_in_memory`` samples all of them go to a file without a
    name, which the system removes with the last that uses it, whatever happens to the process.

    Args:
        expected_samples: how many will probably come.
        max_in_memory: how many may lie in memory; None where all may.
        folder: where the file is; None is the system's folder for such files.
    """

    def __init__(self, expected_samples: int = 0, max_in_memory: int | None = None, folder: Path | None = None) -> None:
        self._max_in_memory = max_in_memory
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._length = 0
        fits = max_in_memory is None or expected_samples <= max_in_memory
        self._data: Samples = np.empty(max(expected_samples, _MIN_CAPACITY_SAMPLES) if fits else 0, dtype=np.float32)

    def __len__(self) -> int:
        return self._length

    def append(self, samples: Samples) -> None:
        """Add samples of shape (samples,).

        Raises:
            StorageFull: there is no room for the file, or none can be made.
        """
        if self._in_memory(len(samples)):
            self._data[self._length : self._length + len(samples)] = samples
        else:
            self._write(samples)
        self._length += len(samples)

    def append_silence(self, samples: int) -> None:
        """The same, of zeros."""
        for first in range(0, samples, _BLOCK_SAMPLES):
            self.append(np.zeros(min(_BLOCK_SAMPLES, samples - first), dtype=np.float32))

    def take(self) -> Samples:
        """All samples, shape (samples,), mapped to be read only if in a file; the buffer is empty afterwards."""
        data, length, file = self._data, self._length, self._file
        self._data, self._length, self._file = np.empty(0, dtype=np.float32), 0, None
        if file is None:
            data.resize(length, refcheck=False)
            return data
        with file, _storage_errors():  # the mapping holds on to the file
            mapped = mmap.mmap(file.fileno(), length * _VALUE_BYTES, access=mmap.ACCESS_READ)
        return np.ndarray(length, dtype=np.float32, buffer=mapped)

    def close(self) -> None:
        """Forget the samples; does nothing after ``take``."""
        if self._file is not None:
            self._file.close()
        self._data, self._length, self._file = np.empty(0, dtype=np.float32), 0, None

    def _in_memory(self, more: int) -> bool:
        """Whether that many more samples go to memory, where there is room for them then."""
        if self._file is not None:
            return False
        needed = self._length + more
        if self._max_in_memory is not None and needed > self._max_in_memory:
            with _storage_errors():
                # Not buffered: there is nothing left to write, and to fail, when it is closed.
                self._file = tempfile.TemporaryFile(buffering=0, prefix="diarist-", dir=self._folder)  # noqa: SIM115
            self._write(self._data[: self._length])
            self._data = np.empty(0, dtype=np.float32)
            return False
        if needed > len(self._data):
            # No view of the row is ever handed out before it is complete, so none can dangle.
            self._data.resize(max(needed, len(self._data) * 5 // 4, _MIN_CAPACITY_SAMPLES), refcheck=False)
        return True

    def _write(self, samples: Samples) -> None:
        assert self._file is not None
        remaining = memoryview(np.ascontiguousarray(samples, dtype=np.float32).tobytes())
        with _storage_errors():
            while remaining:
                remaining = remaining[self._file.write(remaining) :]


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise StorageFull(
                "The disk ran full while the recording was decoded: a long one takes 230 MB an hour until it is done. "
                "Free space where temporary files lie (for the service DATA_DIR, or TEMP_AUDIO_DIR where that is set; "
                "else TMPDIR), and send it again."
            ) from error
        raise StorageFull(
            f"The samples of a long recording cannot be kept in the folder for temporary files ({error}): make it "
            "writable, or name another one by TEMP_AUDIO_DIR for the service, else by TMPDIR."
        ) from error
