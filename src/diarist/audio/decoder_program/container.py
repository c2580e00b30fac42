"""Opening of the container, choice of the audio track, and the durations that the header states."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from .formats import (
    DECODERS,
    LATE_TRACK_FORMATS,
    LATE_TRACK_OPTIONS,
    MATROSKA,
    OPEN_OPTIONS,
    TRACK_DURATION_FORMATS,
)
from .rejection import RecordingRejected

READS_DESCRIPTOR = sys.platform != "win32"
"""Whether FFmpeg reads descriptor 0 itself. On Windows, its C library may be another one than that of Python, which
would take the bytes for text: there, Python reads the file."""


def open_recording(av: Any, kind: str | None) -> Any:
    """Open the container on descriptor 0, or raise ``RecordingRejected``."""
    container = _open(av, kind, OPEN_OPTIONS)
    if container.format.name in LATE_TRACK_FORMATS and not container.streams.audio:
        container.close()
        os.lseek(0, 0, os.SEEK_SET)
        container = _open(av, kind, LATE_TRACK_OPTIONS)
    return container


def _open(av: Any, kind: str | None, options: dict[str, str]) -> Any:
    try:
        return av.open("fd:" if READS_DESCRIPTOR else _StandardInput(), options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        if kind is None:
            raise RecordingRejected(
                "not_audio",
                "This is not a supported audio or video file. Send WAV, FLAC, MP3, M4A, MP4, Ogg, Opus, WebM or "
                "another common format. Raw samples without a header must be converted to one of them first.",
            ) from error
        raise RecordingRejected(
            "corrupt_audio",
            f"This looks like {kind}, but its header is damaged or missing, as if a recording or a copy was cut off. "
            "Export or copy it again.",
        ) from error


class _StandardInput(io.FileIO):
    def __init__(self) -> None:
        super().__init__(0, closefd=False)
        self.name = ""  # PyAV requires a text, which FFmpeg would take for the name of the file

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:  # damaged files contain offsets that no file has, which FFmpeg expects to be refused
            return -(error.errno or errno.EIO)


def audio_tracks(av: Any, container: Any) -> list[Any]:
    """Return the audio tracks that can be decoded: the default one, or else the first, and then the others in order.

    Raises ``RecordingRejected`` if there is none.
    """
    tracks = [stream for stream in container.streams if stream.type == "audio"]
    if not tracks:
        raise RecordingRejected("not_audio", "The file has no audio track. Send a recording with sound.")
    decodable = [track for track in tracks if track.codec_context is not None and track.codec_context.name in DECODERS]
    if not decodable:
        names = ", ".join(sorted({track.codec_context.name for track in tracks if track.codec_context is not None}))
        raise RecordingRejected(
            "unsupported_audio",
            f"The audio codec is not supported ({names or 'unknown'}). Convert the recording to WAV, FLAC or MP3.",
        )
    default = next((track for track in decodable if track.disposition & av.stream.Disposition.default), decodable[0])
    return [default, *(track for track in decodable if track is not default)]


def find_track(av: Any, container: Any, number: int | None) -> tuple[Any, dict[str, Any]]:
    """Return an audio track, and the fields of the message ``O`` about the tracks of the file.

    Args:
        av: The module of PyAV.
        container: The open container.
        number: The number of the track among all audio tracks of the file, from 1; None is the default track.

    Raises ``RecordingRejected`` if there is no such track, or if it cannot be decoded.
    """
    tracks = [stream for stream in container.streams if stream.type == "audio"]
    decodable = audio_tracks(av, container)
    if number is not None and number > len(tracks):
        several = len(tracks) > 1
        raise RecordingRejected(
            "track_not_found",
            f"There is no audio track {number}: the recording has {len(tracks)} audio track{'s' * several}. "
            + (f"Give a number from 1 to {len(tracks)}, or leave it out." if several else "Leave the number out."),
        )
    stream = decodable[0] if number is None else tracks[number - 1]
    numbers = [tracks.index(track) + 1 for track in decodable]
    if number is not None and number not in numbers:
        name = stream.codec_context.name if stream.codec_context is not None else "unknown"
        raise RecordingRejected(
            "unsupported_audio",
            f"The codec of audio track {number} is not supported ({name}). Convert it to WAV, FLAC or MP3, or give the "
            f"number of another track ({', '.join(map(str, sorted(numbers)))}).",
        )
    return stream, {"track": tracks.index(stream) + 1, "decodable": numbers, "tracks": len(tracks)}


def stated_durations(container: Any, stream: Any, request: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the stated duration of the track and the stated end of the longest track, in seconds.

    A duration is None if the header does not state it, or if FFmpeg estimates it.
    """
    name = container.format.name
    if name == "asf":
        # FFmpeg gives each stream the duration of the file, and adds the start of the stream to that of the container.
        return None, max(
            (float(each.duration * each.time_base) for each in container.streams if each.duration), default=None
        )
    if name == MATROSKA or (name == "flv" and request["states_length"]):
        return None, container.duration / 1e6 if container.duration else None
    stated = request["states_length"] if name == "mp3" else name in TRACK_DURATION_FORMATS
    if not stated or not stream.duration or stream.duration < 0:
        return None, None
    seconds = float(stream.duration * stream.time_base)
    bytes_stated = seconds * (stream.codec_context.bit_rate or 0) / 8
    # Writers that cannot seek back leave the largest number, or 2^31, as a placeholder.
    if (
        name in {"wav", "w64", "au", "aiff"}
        and bytes_stated >= 2**31 - 2**16
        and bytes_stated > 2 * request["size_bytes"]
    ):
        return None, None
    return seconds, None
