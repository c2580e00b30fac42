"""SubRip subtitles."""

from __future__ import annotations

from diarist.formats.cue_timing import Cue
from diarist.formats.cues import subtitles
from diarist.formats.single_line import one_line
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.formats.timestamps import clock
from diarist.types import Transcript


def render(transcript: Transcript, options: SubtitleOptions = DEFAULT) -> str:
    """Return numbered cues that do not overlap, since many players show only one of them.

    Cues begin with their speaker where ``options.labels`` says, because the format has no field for it.
    """
    cues = subtitles(transcript, options, label=lambda speaker: f"{one_line(speaker)}:", overlap=False)
    return "".join(f"{number}\n{_cue(cue)}\n" for number, cue in enumerate(cues, start=1))


def _cue(cue: Cue) -> str:
    # SubRip cannot escape the arrow of its time lines, and readers search for it anywhere.
    text = "".join(line.replace("-->", "\N{RIGHTWARDS ARROW}") + "\n" for line in cue.lines)
    return f"{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n{text}"
