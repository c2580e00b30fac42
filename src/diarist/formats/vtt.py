"""WebVTT subtitles, https://www.w3.org/TR/webvtt1/."""

from __future__ import annotations

from html import escape

from diarist.formats.cues import Cue, subtitles
from diarist.formats.single_line import one_line
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.formats.timestamps import clock
from diarist.types import Transcript


def render(transcript: Transcript, options: SubtitleOptions = DEFAULT) -> str:
    """Return cues with the speaker in a voice span, such as ``<v SPEAKER_00>``."""
    return "WEBVTT\n" + "".join(f"\n{_cue(cue)}" for cue in subtitles(transcript, options))


def _cue(cue: Cue) -> str:
    # A voice span over the whole cue needs no end tag. With ">" escaped, no text contains the arrow of a time line.
    text = "\n".join(escape(line, quote=False) for line in cue.lines)
    voice = escape(one_line(cue.speaker), quote=False)
    return f"{clock(cue.start_ms)} --> {clock(cue.end_ms)}\n<v {voice}>{text}\n"
