"""The windows of audio that Whisper decodes: chunks of speech with some audio around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diarist.engines.chunking import quietest_position
from diarist.types import Audio, Seconds, Span


@dataclass(frozen=True, slots=True)
class DecodingWindow:
    """A part of the recording that is decoded at once."""

    core: Span
    """The part whose words belong to this window. The cores of all windows are disjoint."""

    span: Span
    """The part that is decoded: it reaches beyond the speech, so that words at its edges are whole."""


def decoding_windows(
    audio: Audio, chunks: Sequence[Span], *, margin: Seconds, overlap: Seconds, search: Seconds
) -> tuple[DecodingWindow, ...]:
    """Return a window for each chunk.

    Args:
        audio: The recording.
        chunks: Ordered, disjoint spans. Speech that is too long for one chunk is in several that touch.
        margin: The audio that is added next to a pause.
        overlap: The audio that is added where chunks touch.
        search: How far the cut between chunks that touch may move to a quieter position.
    """
    if not chunks:
        return ()
    chunks = [chunk.clamp(0.0, audio.duration) for chunk in chunks]
    ends = [*(_end(audio, before, after, search) for before, after in pairwise(chunks)), audio.duration]
    windows: list[DecodingWindow] = []
    for i, chunk in enumerate(chunks):
        before, after = (ends[i - 1] if i else 0.0), ends[i]
        start = before - overlap if i and chunks[i - 1].end == chunk.start else chunk.start - margin
        end = after + overlap if i + 1 < len(chunks) and chunks[i + 1].start == chunk.end else chunk.end + margin
        windows.append(DecodingWindow(Span(before, after), Span(start, end).clamp(0.0, audio.duration)))
    return tuple(windows)


def _end(audio: Audio, before: Span, after: Span, search: Seconds) -> Seconds:
    """Return the end of the core of one chunk, where that of the next starts."""
    if after.start > before.end:
        return (before.end + after.start) / 2
    reach = min(search, before.duration / 2, after.duration / 2)
    return quietest_position(audio, Span(before.end - reach, before.end + reach))
