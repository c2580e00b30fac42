"""The recordings that the library accepts: paths, bytes, file objects, and arrays of samples."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diarist.audio.decoder_program.messages import MAX_CHANNELS
from diarist.errors import CorruptAudio, EmptyAudio, InvalidOption, StorageFull
from diarist.scratch import PIPED_PREFIX, disk_full, locked_file


class Readable(Protocol):
    """A binary file object."""

    def read(self, size: int, /) -> bytes: ...


Recording: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | NDArray[Any]
"""A path, the bytes of a file, a binary file object, or samples of shape (samples,) or (samples, channels)."""

MAX_RATE = 768_000
"""The maximum sample rate of an array."""

MAX_PEAK = 8.0
"""Samples of type float are in -1..1; slightly larger ones are clipped. A higher peak means that they are not scaled,
as after a conversion of 16-bit samples to float."""

_BLOCK_BYTES = 2**20
_BLOCK_SAMPLES = 2**20
_MAX_RIFF_BYTES = 2**32 - 2**12
_PCM, _FLOAT = 1, 3


@contextmanager
def recording_file(recording: Recording, rate: int | None) -> Iterator[Path]:
    """Yield the absolute path of a recording. What is not a file yet is written to a temporary one.

    Args:
        recording: The recording.
        rate: The samples per second of an array; None for everything else.

    Raises:
        InvalidOption: The recording is of another type or shape, or ``rate`` is missing, unexpected or out of range.
        EmptyAudio: An array has no samples.
        CorruptAudio: An array contains values that are not numbers.
        StorageFull: There is too little space for the temporary file.
    """
    if isinstance(recording, str | os.PathLike):
        _refuse_rate(rate)
        yield _path(recording)
        return
    with locked_file(None, PIPED_PREFIX) as path:
        try:
            with path.open("wb") as file:
                _write(recording, rate, file)
        except OSError as error:
            if not disk_full(error):
                raise
            raise StorageFull(
                f"There is too little space for the recording in the folder for temporary files ({path.parent})."
            ) from error
        yield path


def _write(recording: Recording, rate: int | None, file: BinaryIO) -> None:
    if isinstance(recording, bytes | bytearray | memoryview):
        _refuse_rate(rate)
        file.write(recording)
    elif hasattr(recording, "__array__"):
        write_wav(file, _checked(np.asarray(recording)), _checked_rate(rate))
    elif callable(getattr(recording, "read", None)):
        _refuse_rate(rate)
        _copy(recording, file)
    else:
        raise InvalidOption(
            f"the recording must be a path, bytes, a binary file object or an array of samples, not "
            f"{type(recording).__name__}"
        )


def _path(recording: str | os.PathLike[str]) -> Path:
    text = os.fspath(recording)
    if not isinstance(text, str):
        raise InvalidOption("the path of the recording must be text, not bytes; bytes are the content of a file")
    if text.lower().startswith(("http://", "https://")):
        raise InvalidOption("the recording is a URL: download it, and give the path or the bytes of the file")
    if not text or "\0" in text:
        raise InvalidOption(f"{text!r} is not the path of a recording")
    return Path.cwd() / text


def _refuse_rate(rate: int | None) -> None:
    if rate is not None:
        raise InvalidOption("rate is only for arrays of samples: files contain their own sample rate")


def _checked_rate(rate: int | None) -> int:
    if rate is None:
        raise InvalidOption("an array of samples needs rate, the number of samples per second")
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 1 <= rate <= MAX_RATE:
        raise InvalidOption(f"rate must be a number of samples per second from 1 to {MAX_RATE}, not {rate!r}")
    if rate != int(rate):
        raise InvalidOption(f"rate must be a whole number of samples per second, not {rate!r}")
    return int(rate)


def _copy(source: Any, file: BinaryIO) -> None:
    if isinstance(source, io.TextIOBase):
        raise InvalidOption('the file object is in text mode: open the recording by open(path, "rb")')
    if getattr(source, "closed", False):
        raise InvalidOption("the file object is closed")
    copied = False
    while True:
        block = source.read(_BLOCK_BYTES)
        if isinstance(block, str):
            raise InvalidOption("the file object returns text: it must be opened in binary mode")
        if not block:
            break
        file.write(block)
        copied = True
    if not copied:
        raise EmptyAudio("The file object has nothing left to read. It is read from its position: seek to the start.")


def _checked(samples: NDArray[Any]) -> NDArray[Any]:
    """Return the samples in the shape (samples, channels), or raise an error."""
    if not (_is_int16(samples) or np.issubdtype(samples.dtype, np.floating)):
        raise InvalidOption(
            f"samples must be int16, or float in -1..1, not {samples.dtype}: divide other integers by their maximum"
        )
    if samples.ndim not in (1, 2):
        raise InvalidOption(f"samples must have the shape (samples,) or (samples, channels), not {samples.shape}")
    if samples.size == 0:
        raise EmptyAudio("The array contains no samples.")
    if samples.ndim == 1:
        samples = samples[:, np.newaxis]
    if samples.shape[1] > MAX_CHANNELS:
        raise InvalidOption(
            f"samples of shape {samples.shape} have {samples.shape[1]} channels, but there may be {MAX_CHANNELS}: the "
            "shape is (samples, channels); transpose the array if channels come first"
        )
    return samples


def _is_int16(samples: NDArray[Any]) -> bool:
    return samples.dtype.kind == "i" and samples.dtype.itemsize == 2  # of either byte order


def write_wav(file: BinaryIO, samples: NDArray[Any], rate: int) -> None:
    """Write samples of shape (samples, channels), int16 or float, as a WAV file (as RF64 above 4 GB).

    Raises:
        CorruptAudio: A value is not a number.
        InvalidOption: Values of type float are far outside of -1..1.
    """
    count, channels = samples.shape
    is_float = not _is_int16(samples)
    width, tag = (4, _FLOAT) if is_float else (2, _PCM)
    data_bytes = count * channels * width
    large = data_bytes > _MAX_RIFF_BYTES
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, 8 * width)
    # RF64 (EBU Tech 3306) is WAV with 64-bit sizes in another chunk.
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, data_bytes + 72, data_bytes, count, 0) if large else b""
    chunks = b"WAVE" + sizes + struct.pack("<4sI", b"fmt ", 16) + layout
    unknown = 2**32 - 1
    riff_bytes = unknown if large else len(chunks) + 8 + data_bytes
    file.write(struct.pack("<4sI", b"RF64" if large else b"RIFF", riff_bytes) + chunks)
    file.write(struct.pack("<4sI", b"data", unknown if large else data_bytes))
    for first in range(0, count, _BLOCK_SAMPLES):
        block = samples[first : first + _BLOCK_SAMPLES]
        if is_float:
            peak = float(np.abs(block).max())
            if not np.isfinite(peak):
                raise CorruptAudio("The array contains values that are not numbers (NaN or infinite).")
            if peak > MAX_PEAK:
                raise InvalidOption(
                    f"samples of type float must be in -1..1, but one is {peak:g}: divide 16-bit samples by 32768"
                )
        file.write(np.ascontiguousarray(block, dtype="<f4" if is_float else "<i2").tobytes())
