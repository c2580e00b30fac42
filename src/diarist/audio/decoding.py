"""Decoding of a file to samples, with the rules for rejecting recordings and their error messages."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diarist.audio.channels import DownMix, drop_duplicate_channels
from diarist.audio.decoder_process import (
    Block,
    Message,
    Opened,
    Report,
    Silence,
    decoder_messages,
    report_fields,
)
from diarist.audio.decoder_program.rejection import DURATION_TOLERANCE_S
from diarist.audio.headers import Header
from diarist.audio.samples import SampleBuffer
from diarist.audio.unsupported_types import protected_type, refuse, unsupported_type
from diarist.errors import AudioTooLong, CorruptAudio, DecoderFailed, EmptyAudio, NotAudio, UnsupportedAudio
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, ChannelMode, Seconds

log = logging.getLogger(__name__)

MIN_DURATION_S = 0.01
"""The minimum duration: less contains no speech, and is shorter than a frame of any model."""

_MAX_MISSING_S, _MAX_MISSING_FRACTION = 1.0, 0.05
"""A recording is truncated if it lacks both more than a second and more than 5% of its stated duration."""

_MAX_FAILED_FRACTION = 0.1
"""The maximum fraction of packets that may fail to decode."""

_MAX_FOREIGN_FRACTION = 0.5
"""The maximum fraction of other bytes in a file of bare packets. With more, the file has another type."""

_OGG_TAIL_BYTES = 2**17
"""The maximum distance of the last Ogg packet from the end: two pages of 64 kB. FFmpeg skips chained streams that it
cannot decode."""

_MAX_INVALID_FRACTION = 0.05
"""The maximum fraction of samples that are NaN or infinite."""

_SILENT_PEAK = 10 ** (-70 / 20)
"""The maximum level of a silent audio track (-70 dB of full scale), whose place another track takes."""

_SEPARATE_DURATION_FACTOR = 2
"""The maximum total duration of separate channels, as a multiple of the limit of a mixed recording: each channel takes
as much processing as one."""

MAX_IN_MEMORY_S = 600.0
"""The samples of longer recordings are stored in a file, so that at most 38 MB are in memory, for all channels
together."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """The limits of decoding one recording."""

    max_duration_s: Seconds = 14_400.0
    timeout_s: Seconds = 600.0
    memory_mb: int = 2_048
    """The maximum address space of the decoder process beyond its libraries, not counting the samples."""

    folder: Path | None = None
    """The folder for the samples of a long recording, which are stored in an unlinked file. None is the system's folder
    for temporary files."""

    @classmethod
    def of(cls, settings: Settings, folder: Path | None = None) -> DecodeLimits:
        return cls(settings.max_duration_s, settings.decode_timeout_s, settings.decode_memory_mb, folder)


def decode(
    path: Path,
    limits: DecodeLimits,
    progress: Callable[[float], None] | None = None,
    channels: ChannelMode = "mix",
    warn: Callable[[str], None] | None = None,
) -> tuple[Audio, ...]:
    """Return the audio of an audio or video file: 16 kHz, float32, finite, in -1..1.

    ``mix`` returns one ``Audio``: the mean of the channels, or the loudest if they cancel. ``separate`` returns one for
    each channel, without duplicates. Above ``MAX_IN_MEMORY_S`` the samples are in a memory-mapped file: read them by
    ``Audio.part`` and ``Audio.cut``. ``progress`` is called with the fraction that is done, 0..1 and never decreasing,
    about ten times a second. An exception that it raises (``Cancelled``) ends the decoder at once and is passed on.

    Of several audio tracks, the default one is decoded, or else the first. If it is silent, the first track with sound
    is decoded instead. ``warn`` is called with a sentence for the user about such a choice, which is also logged.

    Raises:
        NotAudio: The file contains no audio, or its container is not supported.
        EmptyAudio: The file contains no samples, or less than ``MIN_DURATION_S``.
        CorruptAudio: The file is damaged or truncated.
        UnsupportedAudio: The sample rate, the number of channels or the codec is not supported.
        AudioTooLong: The recording is longer than the limit.
        DecoderFailed: The decoder died, or exceeded its time or memory limit.
        StorageFull: There is not enough space for the samples of a long recording.
        OSError: The file cannot be opened.
    """
    on_progress = progress or _ignore_progress
    # O_NONBLOCK: opening a named pipe would otherwise block.
    recording = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(recording)
        if not stat.S_ISREG(status.st_mode):
            raise NotAudio("This is a folder or a device, not a file. Give the recording itself.")
        if status.st_size == 0:
            raise EmptyAudio("The file is empty (0 bytes): the recording or the upload failed. Send it again.")
        refuse(protected_type(recording))
        try:
            audio, warning = _decode_audible_track(recording, Header.of(recording), limits, on_progress, channels)
        except (NotAudio, EmptyAudio, CorruptAudio) as error:
            refuse(unsupported_type(recording), error)
            raise
    finally:
        os.close(recording)
    if warning is not None:
        log.warning("%s", warning)
        if warn is not None:
            warn(warning)
    on_progress(1.0)
    return audio


def _decode_audible_track(
    recording: int, header: Header, limits: DecodeLimits, progress: Callable[[float], None], channels: ChannelMode
) -> tuple[tuple[Audio, ...], str | None]:
    """Decode the first track that is not silent, or else the first one, and return it with a warning.

    No further track is tried after the time limit of one, so that a file of many silent tracks cannot occupy the
    decoder for longer than twice the limit.
    """
    most_done = 0.0

    def on_progress(done: float) -> None:
        nonlocal most_done
        most_done = max(most_done, done)
        progress(most_done)

    deadline = time.monotonic() + limits.timeout_s
    first = _decode_track(recording, header, limits, on_progress, channels, 0)
    silence = f"Audio track {first.number} is silent."
    for track in range(1, first.tracks if first.silent else 1):
        if time.monotonic() >= deadline:
            return first.take(), f"{silence} The time limit (DECODE_TIMEOUT_S) did not suffice to try all other tracks."
        other = _decode_track(recording, header, limits, on_progress, channels, track)
        if not other.silent:
            return other.take(), f"{silence} The transcript is that of audio track {other.number}."
    return first.take(), None


@dataclass(frozen=True, slots=True)
class _Track:
    """One audio track of a recording."""

    number: int
    """The number among all audio tracks of the file, from 1."""

    tracks: int
    """The number of audio tracks that can be decoded."""

    silent: bool
    audio: tuple[Audio, ...]
    empty: EmptyAudio | None = None
    """The error, if the track contains no samples."""

    def take(self) -> tuple[Audio, ...]:
        """Return the audio, or raise the error."""
        if self.empty is not None:
            raise self.empty
        return self.audio


def _decode_track(
    recording: int,
    header: Header,
    limits: DecodeLimits,
    on_progress: Callable[[float], None],
    channels: ChannelMode,
    track: int,
) -> _Track:
    os.lseek(recording, 0, os.SEEK_SET)  # the processes share the position in the file
    with closing(_Collector(limits, channels)) as collector:
        with decoder_messages(
            recording, header, max_duration_s=limits.max_duration_s, timeout_s=limits.timeout_s,
            memory_mb=limits.memory_mb, on_progress=on_progress, track=track,
        ) as arriving:  # fmt: skip
            for message in arriving:
                collector.add(message)
        report = collector.report
        try:
            audio = collector.finish(report, header)
        except EmptyAudio as error:
            return _Track(report.track_number, report.tracks, silent=True, audio=(), empty=error)
        return _Track(report.track_number, report.tracks, silent=collector.peak <= _SILENT_PEAK, audio=audio)


class _Collector:
    """Collects the messages of the decoder process."""

    def __init__(self, limits: DecodeLimits, channels: ChannelMode) -> None:
        self._limits = limits
        self._mode = channels
        self._expected_samples = 0
        self._buffers: list[SampleBuffer] = []
        self._down_mix = DownMix()
        self._silent_samples = 0
        self._samples = 0
        self._values = 0
        self._invalid_values = 0
        self._report: Report | None = None
        self.peak = 0.0
        """The largest absolute value of the samples."""

    @property
    def report(self) -> Report:
        """The report of the decoder process, or ``DecoderFailed`` if there is none."""
        if self._report is None:
            raise DecoderFailed("The decoder stopped without a report. Convert the recording to WAV and send it again.")
        return self._report

    def add(self, message: Message) -> None:
        match message:
            case Opened(duration):
                expected = min(duration or 0.0, self._limits.max_duration_s)
                self._expected_samples = round(max(expected + 1.0, 0.0) * SAMPLE_RATE)
            case Block(samples):
                self._sound(samples)
            case Silence(samples):
                self._silence(samples)
            case Report():
                self._report = message

    def _sound(self, block: NDArray[np.float32]) -> None:
        valid = np.isfinite(block)
        self._values += block.size
        if not valid.all():
            self._invalid_values += block.size - int(np.count_nonzero(valid))
            block = np.where(valid, block, np.float32(0.0))
        block = np.clip(block, -1.0, 1.0)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        tracks = block.shape[1] if self._mode == "separate" else 1
        if not self._buffers:
            max_in_memory = round(MAX_IN_MEMORY_S * SAMPLE_RATE) // tracks
            self._buffers = [
                SampleBuffer(self._expected_samples, max_in_memory, self._limits.folder) for _ in range(tracks)
            ]
            for buffer in self._buffers:
                buffer.append_silence(self._silent_samples)
        elif tracks != len(self._buffers):
            raise UnsupportedAudio(
                "The number of channels changes within the recording, so that it cannot be split into channels. Use "
                "channels=mix, or convert it to a constant number of channels."
            )
        self._advance(len(block))
        if self._mode == "mix":
            self._buffers[0].append(self._down_mix.mix(block))
        else:
            for buffer, channel in zip(self._buffers, block.T, strict=True):
                buffer.append(channel)

    def _silence(self, samples: int) -> None:
        self._advance(samples)
        if not self._buffers:
            self._silent_samples += samples
        for buffer in self._buffers:
            buffer.append_silence(samples)

    def _advance(self, samples: int) -> None:
        self._samples += samples
        tracks = len(self._buffers)
        limit_s = self._limits.max_duration_s
        # One second more than the process itself allows, so that normally its own error is reported.
        if self._samples > (limit_s + DURATION_TOLERANCE_S + 1.0) * SAMPLE_RATE:
            raise AudioTooLong(f"The recording is longer than the limit of {limit_s:,.0f} s. Split it.")
        if (
            tracks > _SEPARATE_DURATION_FACTOR
            and self._samples * tracks > _SEPARATE_DURATION_FACTOR * (limit_s + 1.0) * SAMPLE_RATE
        ):
            raise AudioTooLong(
                f"{tracks} separate channels may last {_SEPARATE_DURATION_FACTOR * limit_s / tracks:,.0f} s. Split the "
                "recording, or use channels=mix."
            )

    def finish(self, report: Report, header: Header) -> tuple[Audio, ...]:
        check_complete(report, header, decoded=bool(self._buffers))
        if self._samples < MIN_DURATION_S * SAMPLE_RATE:
            raise EmptyAudio(
                f"The recording contains less than {MIN_DURATION_S * 1000:.0f} ms of sound: it failed or was cut too "
                "short. Send one with speech."
            )
        if self._invalid_values > _MAX_INVALID_FRACTION * self._values:
            raise CorruptAudio(
                f"{100 * self._invalid_values / self._values:.0f} % of the samples are not numbers (NaN or infinite). "
                "Export it again, as 16-bit WAV or FLAC."
            )
        if report.failed_packets or self._invalid_values or self._down_mix.canceled_samples:
            log.warning(
                "Decoded with repairs: %s; %d samples were not numbers; the loudest channel was used for %.1f s, where "
                "the channels cancel",
                report_fields(report), self._invalid_values, self._down_mix.canceled_samples / SAMPLE_RATE,
            )  # fmt: skip
        audio = [Audio(buffer.take()) for buffer in self._buffers]
        return drop_duplicate_channels(audio) if self._mode == "separate" else tuple(audio)

    def close(self) -> None:
        """Discard the samples that were not returned."""
        for buffer in self._buffers:
            buffer.close()


def check_complete(report: Report, header: Header, *, decoded: bool) -> None:
    """Reject recordings that are mostly damaged or end too early, since silent loss is worse than an error.

    Raises:
        EmptyAudio: There is no sound, and nothing is damaged.
        CorruptAudio: Too much of the recording is missing or damaged.
    """
    damaged = report.failed_packets > 0 or report.truncated
    if not decoded:
        if damaged:
            raise CorruptAudio("The audio cannot be decoded: the file is damaged. Export or copy it again.")
        if _missing(report.track_duration, report.decoded_duration) or _missing(
            report.file_duration, report.last_timestamp
        ):
            raise CorruptAudio("The audio is missing: the file was cut off after its header. Export or copy it again.")
        raise EmptyAudio("The recording contains no sound (0 s): it failed. Send one with speech.")
    if report.failed_packets > 1 and report.failed_packets > _MAX_FAILED_FRACTION * report.packets:
        raise CorruptAudio(
            f"{report.failed_packets:,} of {report.packets:,} packets cannot be decoded: the file is damaged. "
            "Export or copy it again."
        )
    if report.expected_bytes is not None and report.decoded_bytes < (1 - _MAX_FOREIGN_FRACTION) * report.expected_bytes:
        raise CorruptAudio(
            "Most of the file is not the kind of audio that its first bytes indicate: it is damaged, or contains raw "
            "samples without a header. Export it again, as WAV or FLAC."
        )
    unread = header.size_bytes - report.last_packet_offset
    if report.format == "ogg" and unread > max(_OGG_TAIL_BYTES, _MAX_MISSING_FRACTION * header.size_bytes):
        raise CorruptAudio(
            f"After {report.decoded_duration:.1f} s the recording changes to another codec, or is damaged, and the "
            "rest cannot be read. Convert it to one WAV or FLAC file."
        )
    # The duration by the stated size, at the seconds per byte of the actual file.
    duration_by_size = report.decoded_duration * (header.stated_bytes or 0) / header.size_bytes
    for stated, reached in (
        (report.track_duration, report.decoded_duration - report.leading_silence),
        (report.file_duration, max(report.last_timestamp, report.decoded_duration)),
        (duration_by_size, report.decoded_duration),
    ):
        if stated is not None and _missing(stated, reached):
            raise CorruptAudio(
                f"The recording ends after {reached:.1f} s, but its header states {stated:.1f} s: the file was cut off "
                "or is damaged. Export or copy it again."
            )


def _missing(stated: Seconds | None, reached: Seconds) -> bool:
    return stated is not None and stated - reached > max(_MAX_MISSING_S, _MAX_MISSING_FRACTION * stated)


def _ignore_progress(_done: float) -> None:
    pass
