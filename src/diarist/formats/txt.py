"""Plain text: one line per utterance, to be read."""

from __future__ import annotations

from diarist.formats.single_line import one_line
from diarist.formats.timestamps import clock, milliseconds
from diarist.types import Transcript


def render(transcript: Transcript) -> str:
    """Lines such as ``[00:00:06.690] SPEAKER_00: Hello?``; the time is the utterance's start."""
    return "".join(
        f"[{clock(milliseconds(utterance.span.start))}] {one_line(utterance.speaker)}: {text}\n"
        for utterance in transcript.utterances
        if (text := one_line(utterance.text))
    )
