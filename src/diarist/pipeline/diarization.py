"""The pipeline from a recording to its turns, without words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diarist.audio import DecodeLimits, read_recording
from diarist.pipeline.progress import ProgressMeter
from diarist.protocols import Diarizer
from diarist.types import Diarization, Progress, Seconds, SpeakerHints


@dataclass(frozen=True, slots=True, eq=False)
class DiarizedRecording:
    """The turns of a recording."""

    diarization: Diarization
    duration: Seconds
    """The duration of the decoded recording."""

    warnings: tuple[str, ...]
    """Sentences for the user about choices that were made for the recording."""


def diarize(
    path: Path, diarizer: Diarizer, hints: SpeakerHints, progress: Progress, limits: DecodeLimits
) -> DiarizedRecording:
    """Find who speaks when in a recording, whose channels are mixed.

    Args:
        path: An audio or video file in any supported format.
        diarizer: The loaded diarizer.
        hints: What is known about the number of speakers.
        progress: Called with the name of the stage and the share of the whole work that is done, 0..1, never falling.
            An exception that it raises, such as ``Cancelled``, ends the work and is propagated.
        limits: The limits of the decoder.

    Raises:
        InputError: The recording cannot be used.
        DecoderFailed: The decoder crashed, or ran out of time or memory.
    """
    meter = ProgressMeter(progress)
    meter.set_speech_shares([0.0])  # nothing is recognized
    with meter.timed("decode"):
        recording = read_recording(path, limits, lambda done: meter.report("decode", done), hints=hints)
    (audio,) = recording.channels
    with meter.timed("diarization"):
        diarization = diarizer.diarize(audio, hints, meter.report)
    progress("clustering", 1.0)
    return DiarizedRecording(diarization, audio.duration, recording.warnings)
