"""WebVTT subtitles, https://www.w3.org/TR/webvtt1/."""

from __future__ import annotations

from html import escape

from diarist.formats.cue_timing import Cue, SpokenLines
from diarist.formats.cues import subtitles
from diarist.formats.single_line import one_line
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.formats.timestamps import clock
from diarist.types import Transcript


def render(transcript: Transcript, options: SubtitleOptions = DEFAULT) -> str:
    """Return cues with each speaker in a voice span, such as ``<v SPEAKER_00>``, or without if there are no labels.

    Players do not show the names of voices. They are in every cue whether the speaker changes or not, since players and
    style sheets cannot know the speaker of a cue without.
    """
    cues = subtitles(transcript, options)
    return "WEBVTT\n" + "".join(f"\n{_cue(cue, voices=options.labels != 'never')}" for cue in cues)


def _cue(cue: Cue, *, voices: bool) -> str:
    text = "\n".join(_text(part, voices=voices, alone=len(cue.parts) == 1) for part in cue.parts)
    return f"{clock(cue.start_ms)} --> {clock(cue.end_ms)}\n{text}\n"


def _text(part: SpokenLines, *, voices: bool, alone: bool) -> str:
    # With ">" escaped, no text contains the arrow of a time line.
    text = "\n".join(escape(line, quote=False) for line in part.lines)
    if not voices:
        return text
    # A voice span over the whole cue needs no end tag.
    return f"<v {escape(one_line(part.speaker), quote=False)}>{text}{'' if alone else '</v>'}"
