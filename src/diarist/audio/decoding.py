"""Decoding of a file to samples: which of its audio tracks are read, and what the user is told about that."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from diarist.audio.channels import drop_duplicate_channels
from diarist.audio.decoder_process import Opened
from diarist.audio.headers import Header
from diarist.audio.limits import MAX_TRACKS, SEPARATE_DURATION_FACTOR, DecodeLimits
from diarist.audio.speech_detection import speech_duration
from diarist.audio.track_decoding import DecodedTrack, TrackRequest, decode_track
from diarist.audio.unsupported_types import protected_type, refuse, unsupported_type
from diarist.channels import ChannelChoice, ChannelMode
from diarist.errors import AudioError, CorruptAudio, DecoderFailed, EmptyAudio, NotAudio, UnsupportedAudio
from diarist.system.file_opening import open_to_read
from diarist.tracks import AudioTracks, PartialMode, TrackChoice, Truncation
from diarist.types import NO_HINTS, Audio, Seconds, SpeakerHints

log = logging.getLogger(__name__)

_NOT_A_FILE = "This is a folder or a device, not a file. Give the recording itself."


@dataclass(frozen=True, slots=True, eq=False)
class DecodedRecording:
    """The audio of a recording, and where it comes from."""

    channels: tuple[Audio, ...]
    """The audio: 16 kHz, float32, finite, in -1..1. It is one ``Audio``, or one for each channel or track."""

    channel_choice: ChannelChoice
    """How the channels of the track were used."""

    tracks: AudioTracks
    truncation: Truncation | None
    """How much of the recording is left, if it was cut off and that is accepted."""

    warnings: tuple[str, ...]
    """Sentences for the user about choices that were made. They have been logged."""


def decode(
    path: Path,
    limits: DecodeLimits,
    progress: Callable[[float], None] | None = None,
    channels: ChannelMode = "mix",
) -> tuple[Audio, ...]:
    """Return the audio of the default track of a file, as ``read_recording`` does."""
    return read_recording(path, limits, progress, channels).channels


def read_recording(
    path: Path,
    limits: DecodeLimits,
    progress: Callable[[float], None] | None = None,
    channels: ChannelMode = "mix",
    track: TrackChoice = None,
    partial: PartialMode = "refuse",
    hints: SpeakerHints = NO_HINTS,
) -> DecodedRecording:
    """Decode an audio or video file.

    Args:
        path: The file.
        limits: The limits of decoding.
        progress: Called with the fraction that is done, 0..1 and never decreasing, about ten times a second. An
            exception that it raises (``Cancelled``) ends the decoder at once and is passed on.
        channels: ``mix`` returns one ``Audio``: the mean of the channels, in which the center of surround sound counts
            most, or the loudest channel if they cancel. ``separate`` returns one for each channel, without duplicates
            and without a channel for low frequencies only. ``auto`` returns the channels that have a party each, or the
            one channel that contains all sound, or otherwise the mix.
        track: The audio track: its number among all audio tracks of the file from 1; ``default``; ``best``, the one
            with most speech; or ``all``, which mixes each track and returns one ``Audio`` for each of them, all of the
            same length and on the same time scale. None is the default track, or else the first, or if that one is
            silent the first track with sound.
        partial: ``accept`` decodes a recording that was cut off as far as it goes.
        hints: What the caller knows about the number of speakers. ``auto`` separates channels only if their number
            agrees with it.

    Above ``MAX_IN_MEMORY_S`` the samples are in a memory-mapped file: read them by ``Audio.part`` and ``Audio.cut``.

    Raises:
        NotAudio: The file contains no audio, or its container is not supported.
        EmptyAudio: The file contains no samples, or less than ``MIN_DURATION_S``.
        CorruptAudio: The file is damaged or truncated.
        TrackNotFound: The file has no audio track with this number.
        UnsupportedAudio: The sample rate, the number of channels or tracks, or the codec is not supported.
        AudioTooLong: The recording is longer than the limit.
        DecoderFailed: The decoder died, or exceeded its time or memory limit.
        StorageFull: There is not enough space for the samples of a long recording.
        OSError: The file cannot be opened.
    """
    on_progress = progress or _ignore_progress
    try:
        recording = open_to_read(path)
    except IsADirectoryError as error:
        raise NotAudio(_NOT_A_FILE) from error
    try:
        status = os.fstat(recording)
        if not stat.S_ISREG(status.st_mode):
            raise NotAudio(_NOT_A_FILE)
        if status.st_size == 0:
            raise EmptyAudio("The file is empty (0 bytes): the recording or the upload failed. Send it again.")
        refuse(protected_type(recording))
        request = TrackRequest(
            recording, Header.of(recording), limits, "mix" if track == "all" else channels, partial, hints
        )
        try:
            decoded = _decode(request, track, _Progress(on_progress))
        except (NotAudio, EmptyAudio, CorruptAudio) as error:
            refuse(unsupported_type(recording), error)
            raise
    finally:
        os.close(recording)
    if decoded.truncation is not None:
        available, stated = decoded.truncation.available, decoded.truncation.stated
        warning = (
            f"The recording was cut off: it ends after {available:.1f} s, but its header states {stated:.1f} s. The "
            "transcript is that of the part that is there."
        )
        decoded = replace(decoded, warnings=(*decoded.warnings, warning))
    for warning in decoded.warnings:
        log.warning("%s", warning)
    on_progress(1.0)
    return decoded


def _decode(request: TrackRequest, track: TrackChoice, progress: _Progress) -> DecodedRecording:
    if track == "all":
        return _decode_all(request, progress)
    if track == "best":
        return _decode_best(request, progress)
    if track is None:
        return _decode_audible(request, progress)
    with decode_track(replace(request, number=None if track == "default" else track), progress) as decoded:
        return _of_one(decoded)


def _of_one(track: DecodedTrack, *warnings: str) -> DecodedRecording:
    """Return the recording whose transcript is that of one track, or raise the error of the track."""
    track.check_gaps()
    channels = track.take()
    tracks = AudioTracks((track.number,), track.count)
    return DecodedRecording(channels, track.channel_choice, tracks, track.truncation, (*warnings, *track.warnings))


def _decode_audible(request: TrackRequest, progress: _Progress) -> DecodedRecording:
    """Decode the first track that is not silent, or else the first one.

    No further track is tried after the time limit of one, so that a file of many silent tracks cannot occupy the
    decoder for longer than twice the limit.
    """
    deadline = time.monotonic() + request.limits.timeout_s
    with decode_track(request, progress) as first:
        silence = f"Audio track {first.number} is silent."
        for number in first.decodable[1:] if first.silent else ():
            if time.monotonic() >= deadline:
                return _of_one(
                    first, f"{silence} The time limit (DECODE_TIMEOUT_S) did not suffice to try all other tracks."
                )
            with decode_track(replace(request, number=number), progress) as other:
                if not other.silent:
                    return _of_one(other, f"{silence} The transcript is that of audio track {other.number}.")
        return _of_one(first)


def _decode_best(request: TrackRequest, progress: _Progress) -> DecodedRecording:
    """Decode the track with most speech; of several with the same amount, the default one or else the first.

    If there is no speech in any of them, the choice is that of ``_decode_audible``. Damage in any track is an error,
    because without it the choice could be another one.
    """
    deadline = time.monotonic() + SEPARATE_DURATION_FACTOR * request.limits.timeout_s
    with decode_track(request, progress) as first:
        if len(first.decodable) == 1:
            return _of_one(first, *_unsupported(first))
        progress.parts = len(first.decodable)
        best = _Candidate.of(first, progress)
        others, warnings = first.decodable[1:], _unsupported(first)
    for index, number in enumerate(others, start=1):
        if time.monotonic() >= deadline:
            warnings += ("The time limit (DECODE_TIMEOUT_S) did not suffice to compare all audio tracks.",)
            break
        with decode_track(replace(request, number=number), progress.after(index)) as track:
            candidate = _Candidate.of(track, progress)
        best = max(best, candidate, key=lambda each: each.rank)  # the first one of equal rank
    if isinstance(best.recording, AudioError):
        raise best.recording
    return replace(best.recording, warnings=(*warnings, *best.recording.warnings))


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A track that may be the best one."""

    recording: DecodedRecording | AudioError
    """The track, or why it contains no samples."""

    rank: tuple[bool, Seconds, bool]
    """Whether there are samples, how long somebody speaks, and whether there is sound."""

    @classmethod
    def of(cls, track: DecodedTrack, progress: _Progress) -> _Candidate:
        silent = track.silent
        try:
            recording = _of_one(track)
        except AudioError as error:
            return cls(error, (False, 0.0, False))
        speech = 0.0 if silent else speech_duration(recording.channels, progress.check)
        return cls(recording, (True, speech, not silent))


def _decode_all(request: TrackRequest, progress: _Progress) -> DecodedRecording:
    """Decode all tracks that can be decoded, and mix each of them."""
    deadline = time.monotonic() + SEPARATE_DURATION_FACTOR * request.limits.timeout_s
    request = replace(request, together=_count_together)
    with ExitStack() as stack:
        first = stack.enter_context(decode_track(request, progress))
        tracks = [first]
        progress.parts = len(first.decodable)
        for index, number in enumerate(first.decodable[1:], start=1):
            if time.monotonic() >= deadline:
                raise DecoderFailed(
                    f"Decoding all audio tracks took longer than {SEPARATE_DURATION_FACTOR} times the limit of "
                    f"{request.limits.timeout_s:g} s (DECODE_TIMEOUT_S) for one. Give the number of one track."
                )
            track = decode_track(replace(request, number=number), progress.after(index))
            tracks.append(stack.enter_context(track))
        tracks.sort(key=lambda track: track.number)
        used = [track for track in tracks if track.error is None]
        if not any(map(_has_sound, used)):
            _of_one(first)  # raises its error
        warnings = list(_unsupported(first))
        warnings += [f"Audio track {each.number} contains no sound, and is left out." for each in tracks if each.error]
        if first.count == 1:
            warnings.append("The recording has only one audio track, which is treated as one speaker.")
        length = max(track.samples for track in used)
        channels = drop_duplicate_channels([audio for track in used for audio in track.take(length)])
        numbers = AudioTracks(tuple(track.number for track in used), first.count)
        return DecodedRecording(
            channels, first.channel_choice, numbers, _longest([track.truncation for track in used]), tuple(warnings)
        )


def _has_sound(track: DecodedTrack) -> bool:
    """Return whether a track is more than gaps."""
    try:
        track.check_gaps()
    except CorruptAudio:
        return False
    return True


def _longest(truncations: Sequence[Truncation | None]) -> Truncation | None:
    cut = [truncation for truncation in truncations if truncation is not None]
    if not cut:
        return None
    return Truncation(max(each.available for each in cut), max(each.stated for each in cut))


def _count_together(opened: Opened) -> int:
    count = len(opened.decodable)
    if count > MAX_TRACKS:
        raise UnsupportedAudio(
            f"The recording has {count} audio tracks, but at most {MAX_TRACKS} can be transcribed together. Give the "
            "number of one track."
        )
    return count


def _unsupported(track: DecodedTrack) -> tuple[str, ...]:
    """Return warnings about the tracks that cannot be decoded."""
    numbers = sorted(set(range(1, track.count + 1)) - set(track.decodable))
    return tuple(f"The codec of audio track {number} is not supported: the track is left out." for number in numbers)


class _Progress:
    """Turns the progress of one track after the other into that of all of them, which never decreases."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._most_done = 0.0
        self._done_parts = 0
        self.parts = 1
        """The number of tracks that are decoded, as far as it is known."""

    def __call__(self, done: float) -> None:
        self._most_done = max(self._most_done, (self._done_parts + done) / self.parts)
        self._report(min(self._most_done, 1.0))

    def after(self, tracks: int) -> _Progress:
        """Return this progress for the next track, after so many others."""
        self._done_parts = tracks
        return self

    def check(self) -> None:
        """Report the same progress again, so that the work can be stopped."""
        self._report(self._most_done)


def _ignore_progress(_done: float) -> None:
    pass
