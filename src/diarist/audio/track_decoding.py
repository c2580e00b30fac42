"""Decoding of one audio track of a recording."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.audio import limits as audio_limits
from diarist.audio.channel_selection import ChannelSelection
from diarist.audio.channels import DownMix, drop_duplicate_channels
from diarist.audio.completeness import check_complete, check_gaps
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
from diarist.audio.limits import MIN_DURATION_S, SEPARATE_DURATION_FACTOR, DecodeLimits
from diarist.audio.samples import SampleBuffer
from diarist.audio.surround import LOW_FREQUENCY_POSITIONS, LowFrequencyChannels, is_surround
from diarist.channels import ChannelChoice, ChannelMode
from diarist.errors import AudioError, AudioTooLong, CorruptAudio, DecoderFailed, EmptyAudio, UnsupportedAudio
from diarist.tracks import PartialMode, Truncation
from diarist.types import SAMPLE_RATE, Audio, SpeakerHints

log = logging.getLogger(__name__)

_MAX_INVALID_FRACTION = 0.05
"""The maximum fraction of samples that are NaN or infinite."""

_SILENT_PEAK = 10 ** (-70 / 20)
"""The maximum level of a silent audio track (-70 dB of full scale), whose place another track takes."""


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """How to decode one track."""

    recording: int
    """The descriptor of the file."""

    header: Header
    limits: DecodeLimits
    channels: ChannelMode
    partial: PartialMode
    hints: SpeakerHints
    """What the caller knows about the number of speakers, which the choice of channels may not contradict."""

    number: int | None = None
    """The number of the track among all audio tracks, from 1; None is the default one."""

    together: Callable[[Opened], int] = lambda _: 1
    """Returns how many tracks are transcribed together, which share the limits of memory and duration."""


class DecodedTrack:
    """One audio track, with its samples until they are taken."""

    def __init__(
        self, opened: Opened, collector: _Collector, truncation: Truncation | None, error: AudioError | None
    ) -> None:
        self._collector = collector
        self.number = opened.track
        """The number of the track among all audio tracks of the file, from 1."""

        self.count = opened.tracks
        """The number of audio tracks of the file."""

        self.decodable = opened.decodable
        """The numbers of the tracks that can be decoded, the default one first."""

        self.truncation = truncation
        """How much of the track is left, if it was cut off and that is accepted."""

        self.error = error
        """Why the track contains no samples, or None."""

    @property
    def silent(self) -> bool:
        """Whether there is no sound above -70 dB of full scale."""
        return self.error is not None or self._collector.peak <= _SILENT_PEAK

    @property
    def samples(self) -> int:
        """The length, in samples."""
        return 0 if self.error is not None else self._collector.samples

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about the channels."""
        return self._collector.warnings

    @property
    def channel_choice(self) -> ChannelChoice:
        """How the channels are used. That of ``auto`` is known after ``take``."""
        return self._collector.choice

    def take(self, samples: int = 0) -> tuple[Audio, ...]:
        """Return the channels, with silence at their ends up to the given number of samples, or raise the error."""
        if self.error is not None:
            raise self.error
        return self._collector.take(samples)

    def check_gaps(self) -> None:
        """Raise ``CorruptAudio`` if the track is almost nothing but gaps."""
        if self.error is None:
            with _named_track(self._collector):
                self._collector.check_gaps()


@contextmanager
def decode_track(request: TrackRequest, on_progress: Callable[[float], None]) -> Generator[DecodedTrack, None, None]:
    """Decode a track. Its samples exist until the context ends, or until they are taken.

    A track without samples is not an error yet, because another one may take its place.

    Raises:
        AudioError: The track cannot be used. The message names the track if there are several.
        DecoderFailed: The decoder died, or exceeded its time or memory limit.
    """
    with closing(_Collector(request)) as collector:
        yield _decode(request, collector, on_progress)


def _decode(request: TrackRequest, collector: _Collector, on_progress: Callable[[float], None]) -> DecodedTrack:
    os.lseek(request.recording, 0, os.SEEK_SET)  # the processes share the position in the file
    limits = request.limits
    truncation: Truncation | None = None
    missing: AudioError | None = None
    with _named_track(collector):
        with decoder_messages(
            request.recording, request.header, max_duration_s=limits.max_duration_s, timeout_s=limits.timeout_s,
            memory_mb=limits.memory_mb, on_progress=on_progress, track=request.number,
        ) as arriving:  # fmt: skip
            for message in arriving:
                collector.add(message)
        try:
            truncation = collector.check()
        except EmptyAudio as error:
            missing = error
        except CorruptAudio as error:
            if request.partial == "refuse" or collector.samples:
                raise
            missing = error  # the file was cut off before the first packet of this track
    if collector.opened is None:
        raise DecoderFailed("The decoder sent an invalid message. Try another format, such as WAV.")
    return DecodedTrack(collector.opened, collector, truncation, missing)


@contextmanager
def _named_track(collector: _Collector) -> Iterator[None]:
    """Name the track in the message of an ``AudioError`` if there are several."""
    try:
        yield
    except AudioError as error:
        if collector.opened is None or collector.opened.tracks == 1:
            raise
        raise type(error)(f"Audio track {collector.opened.track} of {collector.opened.tracks}: {error}") from error


class _Collector:
    """Collects the messages of the decoder process."""

    def __init__(self, request: TrackRequest) -> None:
        self._request = request
        self._limits = request.limits
        self._separate = request.channels == "separate"
        self._expected_samples = 0
        self._tracks = 1
        self._buffers: list[SampleBuffer] = []
        self._down_mix = DownMix()
        self._selection: ChannelSelection | None = None
        self._low_frequency = LowFrequencyChannels()
        self._only_low: tuple[int, ...] = ()
        self._positions: tuple[str, ...] = ()
        self._silent_samples = 0
        self._values = 0
        self._invalid_values = 0
        self._report: Report | None = None
        self.choice = ChannelChoice(request.channels, "separate" if self._separate else "mix")
        """How the channels are used."""

        self.opened: Opened | None = None
        """What the decoder process reported at its start; None before that."""

        self.samples = 0
        """The number of samples so far, including silence."""

        self.peak = 0.0
        """The largest absolute value of the samples."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about the channels."""
        named_low = {index for index, position in enumerate(self._positions) if position in LOW_FREQUENCY_POSITIONS}
        if "FC" not in self._positions or not is_surround(self._positions) or named_low != set(self._only_low):
            return ()
        warning = (
            "The recording is surround sound, whose channels are loudspeakers: a voice may be in several of them. If "
            "each channel is not one speaker, use channels=mix."
        )
        return (warning,)

    def add(self, message: Message) -> None:
        match message:
            case Opened():
                expected = min(message.duration or 0.0, self._limits.max_duration_s)
                self._expected_samples = round(max(expected + 1.0, 0.0) * SAMPLE_RATE)
                self._tracks = self._request.together(message)
                self.opened = message
            case Block():
                self._sound(message.samples, message.positions)
            case Silence(samples):
                self._silence(samples)
            case Report():
                self._report = message

    def _sound(self, block: NDArray[np.float32], positions: Sequence[str]) -> None:
        valid = np.isfinite(block)
        self._values += block.size
        if not valid.all():
            self._invalid_values += block.size - int(np.count_nonzero(valid))
            block = np.where(valid, block, np.float32(0.0))
        block = np.clip(block, -1.0, 1.0)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        channels = block.shape[1] if self._separate else 1
        if not self._buffers:
            max_in_memory = round(audio_limits.MAX_IN_MEMORY_S * SAMPLE_RATE) // (channels * self._tracks)
            if self._request.channels == "auto":
                max_in_memory //= 2
                self._selection = ChannelSelection(
                    block.shape[1], self._request.hints, self._expected_samples, max_in_memory, self._limits.folder,
                    self._limits.min_free_bytes,
                )  # fmt: skip
                for first in range(0, self._silent_samples, SAMPLE_RATE):
                    self._selection.add_silence(min(SAMPLE_RATE, self._silent_samples - first))
            self._buffers = [
                SampleBuffer(self._expected_samples, max_in_memory, self._limits.folder, self._limits.min_free_bytes)
                for _ in range(channels)
            ]
            for buffer in self._buffers:
                buffer.append_silence(self._silent_samples)
        elif channels != len(self._buffers):
            raise UnsupportedAudio(
                "The number of channels changes within the recording, so that it cannot be split into channels. Use "
                "channels=mix, or convert it to a constant number of channels."
            )
        self._advance(len(block))
        if self._selection is not None:
            self._selection.add(block)
        if not self._separate:
            self._buffers[0].append(self._down_mix.mix(block, positions))
            return
        self._positions = tuple(positions)
        self._only_low = self._low_frequency.find(block, positions)
        for buffer, channel in zip(self._buffers, block.T, strict=True):
            buffer.append(channel)

    def _silence(self, samples: int) -> None:
        self._advance(samples)
        if not self._buffers:
            self._silent_samples += samples
        if self._selection is not None:
            self._selection.add_silence(samples)
        for buffer in self._buffers:
            buffer.append_silence(samples)

    def _advance(self, samples: int) -> None:
        self.samples += samples
        limit_s = self._limits.max_duration_s
        if self._selection is not None and self._too_long(self._selection.channels):
            self._selection.abandon("duration")
        parts = len(self._buffers) * self._tracks
        # One second more than the process itself allows, so that normally its own error is reported.
        if self.samples > (limit_s + DURATION_TOLERANCE_S + 1.0) * SAMPLE_RATE:
            raise AudioTooLong(f"The recording is longer than the limit of {limit_s:,.0f} s. Split it.")
        if self._too_long(parts):
            what, advice = (
                ("separate channels", "use channels=mix")
                if self._separate
                else ("audio tracks together", "give the number of one track")
            )
            raise AudioTooLong(
                f"{parts} {what} may last {SEPARATE_DURATION_FACTOR * limit_s / parts:,.0f} s. Split the recording, or "
                f"{advice}."
            )

    def _too_long(self, parts: int) -> bool:
        """Return whether so many channels or tracks are longer than they may be together."""
        limit_samples = SEPARATE_DURATION_FACTOR * (self._limits.max_duration_s + 1.0) * SAMPLE_RATE
        return parts > SEPARATE_DURATION_FACTOR and self.samples * parts > limit_samples

    def check(self) -> Truncation | None:
        """Return how much is left of a track that was cut off, or raise an error if the track cannot be used."""
        request, report = self._request, self._report
        if report is None:
            raise DecoderFailed("The decoder stopped without a report. Convert the recording to WAV and send it again.")
        truncation = check_complete(report, request.header, decoded=bool(self._buffers), partial=request.partial)
        if self.samples < MIN_DURATION_S * SAMPLE_RATE:
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
        return truncation

    def check_gaps(self) -> None:
        """Raise ``CorruptAudio`` if the track is almost nothing but gaps."""
        if self._report is not None:
            check_gaps(self._report)

    def take(self, samples: int) -> tuple[Audio, ...]:
        """Return the channels, with silence at their ends up to the given number of samples."""
        if self._selection is not None:
            self.choice, selected = self._selection.take()
            if selected:
                return selected
        for buffer in self._buffers:
            buffer.append_silence(max(samples - self.samples, 0))
        audio = [Audio(buffer.take()) for buffer in self._buffers]
        if not self._separate:
            return tuple(audio)
        kept = [channel for index, channel in enumerate(audio) if index not in self._only_low]
        return drop_duplicate_channels(kept or audio)

    def close(self) -> None:
        """Discard the samples that were not taken."""
        if self._selection is not None:
            self._selection.close()
        for buffer in self._buffers:
            buffer.close()
