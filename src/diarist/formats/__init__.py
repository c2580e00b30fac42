"""The output formats of transcripts: one module per format, and the list of all formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from diarist.errors import InvalidOption
from diarist.formats import json_format, rttm, srt, txt, vtt
from diarist.formats.extras import Extras
from diarist.formats.speaker_names import with_speaker_names
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.types import Transcript

__all__ = ["FORMATS", "Extras", "Format", "find", "render"]


@dataclass(frozen=True, slots=True)
class Format:
    """Represents an output format of transcripts."""

    name: str
    """The name that users select the format by."""

    media_type: str
    """The media type for the header ``Content-Type``. The text is always UTF-8."""

    extension: str
    """The extension of files in this format, without the dot."""

    write: Callable[[Transcript, str, Extras], str]
    """Returns the document of a transcript whose speakers have their names."""

    def render(self, transcript: Transcript, recording: str, extras: Extras) -> str:
        """Return the document of a transcript, given the recording's name and the requested extras."""
        return self.write(with_speaker_names(transcript, extras.speaker_names), recording, extras)


def _by_name(*formats: Format) -> Mapping[str, Format]:
    return MappingProxyType({each.name: each for each in formats})


FORMATS: Mapping[str, Format] = _by_name(
    Format("json", "application/json", "json", lambda it, _, extras: json_format.render(it, extras)),
    Format("txt", "text/plain", "txt", lambda it, _, __: txt.render(it)),
    Format("srt", "application/x-subrip", "srt", lambda it, _, extras: srt.render(it, extras.subtitles)),
    Format("vtt", "text/vtt", "vtt", lambda it, _, extras: vtt.render(it, extras.subtitles)),
    Format("rttm", "text/plain", "rttm", lambda it, recording, _: rttm.render(it, recording)),
)
"""All formats by name, in the order in which they are listed."""


def find(name: str) -> Format:
    """Return the format with this name.

    Raises:
        InvalidOption: There is no such format. The message lists all formats.
    """
    if name not in FORMATS:
        raise InvalidOption(f"format must be one of {', '.join(FORMATS)}, not {name!r}")
    return FORMATS[name]


def render(
    transcript: Transcript,
    name: str,
    *,
    recording: str,
    words: bool = False,
    details: bool = False,
    subtitles: SubtitleOptions = DEFAULT,
    speaker_names: tuple[str, ...] = (),
) -> str:
    """Return ``transcript`` in the format called ``name``.

    Args:
        transcript: The transcript; an empty one gives a valid, empty document.
        name: A key of ``FORMATS``.
        recording: The recording's name, for formats that contain one (rttm). It may be any text and is escaped.
        words: Whether to add each word with its times and confidences, if the format supports it (json).
        details: Whether to add facts about the recording and its processing, if the format supports it (json).
        subtitles: The limits of cues, for formats that have them (srt, vtt).
        speaker_names: The names of the speakers in the order in which they first speak.

    Raises:
        InvalidOption: There is no such format.
    """
    return find(name).render(transcript, recording, Extras(words, details, subtitles, speaker_names))
