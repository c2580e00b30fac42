"""Plain text with one line per utterance."""

from __future__ import annotations

from diarist.formats.single_line import one_line
from diarist.formats.timestamps import clock, milliseconds
from diarist.types import Transcript


def render(transcript: Transcript) -> str:
    """Return lines such as ``[00:00:06.690] SPEAKER_00: Hello?``, with the start of each utterance."""
    return "".join(
        f"[{clock(milliseconds(utterance.span.start))}] {one_line(utterance.speaker)}: {text}\n"
        for utterance in transcript.utterances
        if (text := one_line(utterance.text))
    )
