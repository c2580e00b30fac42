"""What a caller selects about the content and layout of a document."""

from __future__ import annotations

from dataclasses import dataclass

from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions


@dataclass(frozen=True, slots=True)
class Extras:
    """Selects optional parts and the layout of a document. Formats ignore what they do not support."""

    words: bool = False
    """Whether each word is included with its times and confidences (json)."""

    details: bool = False
    """Whether facts about the recording and its processing are included (json)."""

    subtitles: SubtitleOptions = DEFAULT
    """The limits of cues (srt, vtt)."""

    speaker_names: tuple[str, ...] = ()
    """The names of the speakers in the order in which they first speak; the others keep their labels (all formats)."""


NO_EXTRAS = Extras()
