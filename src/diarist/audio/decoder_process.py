"""The parent's side of the decoder process: it starts it with limits, reads it with a timeout, and ends it."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diarist.audio import decoder_program
from diarist.audio.decoder_program.messages import BLOCK_SAMPLES, MAX_CHANNELS, MESSAGE
from diarist.audio.headers import Header
from diarist.errors import (
    AudioError,
    AudioTooLong,
    CorruptAudio,
    DecoderFailed,
    NotAudio,
    TrackNotFound,
    UnsupportedAudio,
)
from diarist.system.child_limits import CHILD_LIMITS_ITSELF, LimitedProcess, interpreter_environment

log = logging.getLogger(__name__)

PROGRAM = Path(decoder_program.__file__).with_name("__main__.py")
"""The file that the decoder process runs. Its memory, time and files are limited by ``resource_limits`` beside it."""

_AUDIO_ERRORS: dict[str, type[AudioError]] = {
    error.code: error for error in (AudioTooLong, CorruptAudio, NotAudio, TrackNotFound, UnsupportedAudio)
}
_POLL_INTERVAL_S = 0.1
_MAX_JSON_BYTES = 65_536
_MIN_SUSPECT_FRACTION = 0.25
"""The minimum size of a file that may need the whole memory limit, as a fraction of the limit. A smaller file cannot:
the largest objects that FFmpeg holds are pictures and indexes, which are in the file."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Reports that the recording was opened."""

    duration: float | None
    """The duration in seconds, stated or estimated; None if it is unknown."""

    track: int
    """The number of the track among all audio tracks of the file, from 1."""

    decodable: tuple[int, ...]
    """The numbers of the tracks that can be decoded, the default one first."""

    tracks: int
    """The number of audio tracks of the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Contains up to a second of sound."""

    samples: NDArray[np.float32]
    """Shape (samples, channels) at 16 kHz. The values have not been validated."""

    positions: tuple[str, ...] = ()
    """FFmpeg's names of the positions of the channels, such as ``FC``; empty if they are unknown."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Represents up to a second that is missing in the recording, in all channels."""

    samples: int


@dataclass(frozen=True, slots=True)
class Report:
    """Summarizes the decoding of the whole recording."""

    format: str
    """The container, by FFmpeg's name."""

    track_duration: float | None
    """The duration of the audio track in seconds from its own start, if the header states it."""

    file_duration: float | None
    """The end of the longest track in seconds, on the same scale as ``last_timestamp``, if the header states it."""

    decoded_duration: float
    """The decoded duration in seconds, including the gaps that were filled."""

    leading_silence: float
    """The time in seconds by which the audio track starts after the recording, which was filled with silence."""

    gap_duration: float
    """The total duration of the gaps that were filled with silence, in seconds."""

    last_timestamp: float
    """The end of the last packet of any track, by its timestamp in seconds."""

    truncated: bool
    """Whether reading stopped at damage."""

    last_packet_offset: int
    """The offset in the file of the last packet of any track."""

    packets: int
    failed_packets: int
    """The number of packets that could not be decoded."""

    decoded_bytes: int
    """The total size of the packets that could be decoded."""

    expected_bytes: int | None
    """The expected total size of the packets, for containers that consist only of packets."""


Message: TypeAlias = Opened | Block | Silence | Report


@contextmanager
def decoder_messages(
    recording: int,
    header: Header,
    *,
    max_duration_s: float,
    timeout_s: float,
    memory_mb: int,
    on_progress: Callable[[float], None],
    track: int | None = None,
) -> Iterator[Iterator[Message]]:
    """Start a decoder process for the file open on descriptor ``recording``, and yield its messages.

    ``track`` is the number of an audio track, from 1. None is the default one, or else the first that can be decoded.

    ``on_progress`` is called with the fraction that is done (0..1) about ten times a second, even while no messages
    arrive. Exceptions that it raises are passed on. The process and its descendants are dead when the context ends.

    Raises:
        AudioError: The process rejected the recording.
        DecoderFailed: The process died, or exceeded its time or memory limit.
    """
    libraries = importlib.util.find_spec("av")
    if libraries is None or libraries.origin is None:
        raise DecoderFailed("PyAV is not installed. Run `pip install diarist` again.")
    memory_bytes, cpu_s = memory_mb * 2**20, math.ceil(timeout_s) + 5
    request = {
        "parent": os.getpid(),
        "libraries": str(Path(libraries.origin).parents[1]),
        "kind": header.kind,
        "track": track,
        "size_bytes": header.size_bytes,
        "tag_bytes": header.tag_bytes,
        "states_length": header.states_length,
        "max_duration_s": max_duration_s,
        "memory_bytes": memory_bytes,
        "cpu_s": cpu_s,
        "limits_itself": CHILD_LIMITS_ITSELF,
    }
    process = LimitedProcess(
        [sys.executable, "-I", "-S", "-B", str(PROGRAM), json.dumps(request)],
        stdin=recording, environment=interpreter_environment(), memory_bytes=memory_bytes, cpu_s=cpu_s,
    )  # fmt: skip
    try:
        yield _Reader(process, header.size_bytes, timeout_s, memory_mb, on_progress).read()
    finally:
        process.end()


class _Reader:
    def __init__(
        self,
        process: LimitedProcess,
        size_bytes: int,
        timeout_s: float,
        memory_mb: int,
        on_progress: Callable[[float], None],
    ) -> None:
        self._process = process
        self._deadline = time.monotonic() + timeout_s
        self._size_bytes = size_bytes
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._on_progress = on_progress
        self._last_progress = 0.0
        self._done = 0.0

    def read(self) -> Iterator[Message]:
        positions: tuple[str, ...] = ()
        while True:
            kind, channels, length, done = MESSAGE.unpack(self._read_exactly(MESSAGE.size))
            self._done = max(self._done, done if math.isfinite(done) else 0.0)
            if kind == b"S" and 1 <= channels <= MAX_CHANNELS and length <= BLOCK_SAMPLES:
                block = np.frombuffer(self._read_exactly(length * channels * 4), dtype=np.float32)
                yield Block(block.reshape(length, channels), positions if len(positions) == channels else ())
            elif kind == b"Z" and length <= BLOCK_SAMPLES:
                yield Silence(length)
            elif kind in {b"O", b"E", b"D", b"L"} and length <= _MAX_JSON_BYTES:
                fields = json.loads(self._read_exactly(length))
                if kind == b"E":
                    raise self._error_for(fields["code"], fields["message"])
                if kind == b"D":
                    yield Report(**fields)
                    return
                if kind == b"L":
                    positions = tuple(str(position) for position in fields["positions"])
                    continue
                log.debug("Decoding %s in %s", fields["codec"], fields["format"])
                yield Opened(fields["duration"], fields["track"], tuple(fields["decodable"]), fields["tracks"])
            else:
                raise DecoderFailed("The decoder sent an invalid message. Try another format, such as WAV.")

    def _read_exactly(self, size: int) -> bytearray:
        received = bytearray(size)
        view = memoryview(received)
        while view:
            now = time.monotonic()
            if now >= self._last_progress + _POLL_INTERVAL_S:
                self._last_progress = now
                self._on_progress(self._done)
                if self._process.exceeds_memory():
                    raise self._error_for("memory", "")
            if now >= self._deadline:
                raise DecoderFailed(
                    f"Decoding took longer than {self._timeout_s:g} s (DECODE_TIMEOUT_S) and was stopped. Send a "
                    "shorter recording, or convert it to WAV first."
                )
            count = self._process.output.read_into(view, min(self._deadline - now, _POLL_INTERVAL_S))
            if count == 0:
                raise self._exit_error()
            view = view[count or 0 :]
        return received

    def _error_for(self, code: str, message: str) -> AudioError | DecoderFailed:
        if code in _AUDIO_ERRORS:
            return _AUDIO_ERRORS[code](message)
        if code == "memory" and self._size_bytes < self._memory_mb * 2**20 * _MIN_SUSPECT_FRACTION:
            return CorruptAudio(
                f"Decoding the recording needs more than {self._memory_mb} MB of memory, which is implausible for its "
                "size: its header is damaged. Export it again, as WAV or FLAC."
            )
        if code == "memory":
            return DecoderFailed(
                f"Decoding needs more memory than the limit of {self._memory_mb} MB (DECODE_MEMORY_MB). "
                "Convert the recording to WAV or MP3 and send it again."
            )
        log.error("The decoder failed: %r", message)
        return DecoderFailed("The decoder failed on this recording. Convert it to WAV or FLAC and send it again.")

    def _exit_error(self) -> DecoderFailed:
        try:
            status = self._process.wait(max(0.1, min(5.0, self._deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            status = 0
        log.error("The decoder process ended early with status %d", status)
        reason = f"was killed by signal {-status}" if status < 0 else f"ended early (status {status})"
        return DecoderFailed(f"The decoder {reason} on this recording. Convert it to WAV or FLAC and send it again.")


def report_fields(report: Report) -> dict[str, Any]:
    """Return the fields of the report for the log."""
    return {name: getattr(report, name) for name in report.__slots__}
