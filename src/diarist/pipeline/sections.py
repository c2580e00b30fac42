"""Sections of a long recording for the recognizer: it is split at pauses, and each section is recognized by itself.

The words become available section by section, and several machines can recognize sections at once. The boundaries
depend on the speech alone, never on who recognizes the sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from diarist.types import Seconds, Span

SECTION_SPEECH_S: Seconds = 270.0
"""The approximate speech in a section. Shorter sections take a recognizer longer in total, because it has fewer chunks
of similar length to process at once: Whisper takes 2 % longer for ten minutes in sections of this length than in one
section, and 9 % longer with 180 s. With longer sections, callers wait longer for words, and there are too few sections
for several machines."""

MIN_EVEN_COUNT = 4
"""From this number of sections on, their number is even."""

MAX_SHIFT = 0.2
"""The maximum distance of a boundary from its even position in favor of a longer pause, as a share of the section."""

MAX_PAUSE_S: Seconds = 1.5
"""Longer pauses have no advantage: an utterance has ended by then, and sections of equal length finish together."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the recording with its speech."""

    speech: tuple[Span, ...]
    """Ordered, disjoint spans; at least one."""

    bounds: Span
    """The time from the middle of the pause before the section to the middle of the one after it. There are no gaps
    between sections."""

    @property
    def speech_duration(self) -> Seconds:
        """The sum of the durations of its speech."""
        return sum(span.duration for span in self.speech)


def split_into_sections(
    speech: Sequence[Span], duration: Seconds, length: Seconds = SECTION_SPEECH_S
) -> tuple[Section, ...]:
    """Return sections of about ``length`` seconds of speech, as even as the pauses allow.

    Speech without a pause is never split, so that a section may be longer. Less speech than one and a half times
    ``length`` is one section.

    Args:
        speech: Ordered, disjoint spans with pauses between them.
        duration: The duration of the recording.
        length: The desired speech in a section.
    """
    if not speech:
        return ()
    edges = [0, *_boundaries(speech, length), len(speech)]
    middles = [(speech[at - 1].end + speech[at].start) / 2 for at in edges[1:-1]]
    bounds = pairwise([0.0, *middles, duration])
    return tuple(
        Section(tuple(speech[first:stop]), Span(start, max(start, end)))
        for (first, stop), (start, end) in zip(pairwise(edges), bounds, strict=True)
    )


def _boundaries(speech: Sequence[Span], length: Seconds) -> list[int]:
    """Return the indices of the spans that start a section, except the first."""
    before = [0.0, *accumulate(span.duration for span in speech)]
    total = before[-1]
    count = _section_count(total, length)
    max_shift = MAX_SHIFT * total / count
    boundaries: list[int] = []
    for even in (total * number / count for number in range(1, count)):
        pauses = range(boundaries[-1] + 1 if boundaries else 1, len(speech))
        if not pauses:
            break
        near = [at for at in pauses if abs(before[at] - even) <= max_shift]
        if near:
            boundaries.append(max(near, key=lambda at: _pause_score(speech, at, abs(before[at] - even) / max_shift)))
        else:
            boundaries.append(min(pauses, key=lambda at: abs(before[at] - even)))
    return boundaries


def _section_count(total: Seconds, length: Seconds) -> int:
    """Return the number of sections: an even number if there are many, so that two or four machines have equal work."""
    count = max(1, round(total / length))
    return count if count < MIN_EVEN_COUNT else 2 * round(total / (2 * length))


def _pause_score(speech: Sequence[Span], at: int, shift: float) -> tuple[Seconds, float]:
    """Return the sort key of a pause: prefer longer pauses, and of two that are equal to the millisecond the nearer."""
    pause = min(speech[at].start - speech[at - 1].end, MAX_PAUSE_S)
    return round(pause * (1 - shift / 2), 3), -shift
