"""Where a long recording is cut for the recogniser: into sections, at pauses, each of which is read by itself.

Their words are there one section after the other, and several machines can read them at once. Where the cuts are goes
by the speech alone, never by who reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from diarist.types import Seconds, Span

LENGTH: Seconds = 270.0
"""Speech in a section, about. Shorter ones take a recogniser longer in all, for it has fewer chunks of like length to
read at once: Whisper takes 2 % longer for ten minutes in sections of this length than in one piece, with 180 s it takes
9 %. Longer ones keep who waits for words waiting, and are too few to keep several machines busy."""

FEW = 4
"""Fewer sections than this are as many as their length asks for."""

REACH = 0.2
"""How far from where it is wanted a cut may be for the sake of a longer pause, as a share of the section."""

ENOUGH: Seconds = 1.5
"""No pause is better than this: an utterance has ended by then, and even sections are ready at the same time."""


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of the recording, and where somebody speaks in it."""

    speech: tuple[Span, ...]
    """Ordered, disjoint spans; at least one."""

    within: Span
    """From the middle of the pause before it to the middle of the one after it. Sections leave no gap."""

    @property
    def spoken(self) -> Seconds:
        """How much speech there is in it."""
        return sum(span.duration for span in self.speech)


def sections(speech: Sequence[Span], duration: Seconds, length: Seconds = LENGTH) -> tuple[Section, ...]:
    """Sections of about ``length`` seconds of speech, as even as its pauses allow.

    Speech without a pause is never cut, so that a section may be longer; speech of less than half as much again as
    ``length`` is one section.

    Args:
        speech: ordered, disjoint spans with pauses between them.
        duration: of the recording.
        length: wanted of a section, in seconds of speech.
    """
    if not speech:
        return ()
    edges = [0, *_cuts(speech, length), len(speech)]
    middles = [(speech[at - 1].end + speech[at].start) / 2 for at in edges[1:-1]]
    bounds = pairwise([0.0, *middles, duration])
    return tuple(
        Section(tuple(speech[first:stop]), Span(start, max(start, end)))
        for (first, stop), (start, end) in zip(pairwise(edges), bounds, strict=True)
    )


def _cuts(speech: Sequence[Span], length: Seconds) -> list[int]:
    """The numbers of the spans that begin a section, but for the first."""
    before = [0.0, *accumulate(span.duration for span in speech)]
    total = before[-1]
    count = _count(total, length)
    reach = REACH * total / count
    cuts: list[int] = []
    for wanted in (total * number / count for number in range(1, count)):
        pauses = range(cuts[-1] + 1 if cuts else 1, len(speech))
        if not pauses:
            break
        near = [at for at in pauses if abs(before[at] - wanted) <= reach]
        if near:
            cuts.append(max(near, key=lambda at: _worth(speech, at, abs(before[at] - wanted) / reach)))
        else:
            cuts.append(min(pauses, key=lambda at: abs(before[at] - wanted)))
    return cuts


def _count(total: Seconds, length: Seconds) -> int:
    """How many sections: an even number where there are many, so that two machines or four have the same to do."""
    count = max(1, round(total / length))
    return count if count < FEW else 2 * round(total / (2 * length))


def _worth(speech: Sequence[Span], at: int, away: float) -> tuple[Seconds, float]:
    """A longer pause is better, and of two that are alike to the millisecond the one that is nearer."""
    pause = min(speech[at].start - speech[at - 1].end, ENOUGH)
    return round(pause * (1 - away / 2), 3), -away
