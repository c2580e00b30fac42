"""The windows that a NeMo recognizer processes one by one: speech cut at its pauses, with a margin around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diarist.engines.chunking import pack, quietest_position
from diarist.types import Audio, Seconds, Span


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """Parameters of the windows."""

    max_speech: Seconds = 30.0
    """The maximum length of a window's speech. NeMo's models are trained on up to 20 to 40 s, and the memory of their
    attention grows with the square of the length."""

    max_pause: Seconds = 2.0
    """A longer pause ends a window: silence only costs time."""

    margin: Seconds = 0.3
    """The audio that is added before and after the speech, but never that of another window."""

    search: Seconds = 1.0
    """The maximum distance of a cut through speech without a pause from the middle, to cut at a quiet position."""


def windows(audio: Audio, speech: Sequence[Span], config: WindowConfig = WindowConfig()) -> tuple[Span, ...]:
    """Return disjoint windows in order that contain all the speech.

    Args:
        audio: The recording.
        speech: Ordered, disjoint spans.
        config: Parameters of the windows.
    """
    chunks = pack([span.clamp(0.0, audio.duration) for span in speech], config.max_speech, config.max_pause)
    if not chunks:
        return ()
    boundaries = [_boundary(audio, before, after, config) for before, after in pairwise(chunks)]
    starts = [max(0.0, chunks[0].start - config.margin), *(start for _, start in boundaries)]
    ends = [*(end for end, _ in boundaries), min(audio.duration, chunks[-1].end + config.margin)]
    return tuple(Span(start, end) for start, end in zip(starts, ends, strict=True) if end > start)


def _boundary(audio: Audio, before: Span, after: Span, config: WindowConfig) -> tuple[Seconds, Seconds]:
    """Return the end of the window of one chunk, and the start of that of the next."""
    if after.start > before.end:
        middle = (before.end + after.start) / 2
        return min(before.end + config.margin, middle), max(after.start - config.margin, middle)
    reach = min(config.search, before.duration / 2, after.duration / 2)
    at = quietest_position(audio, Span(before.end - reach, before.end + reach))
    return at, at
