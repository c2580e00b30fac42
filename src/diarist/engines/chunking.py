"""Where speech is cut for the recogniser: at its longest pauses, into pieces of a length that it likes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from diarist.types import Seconds, Span


def pack(speech: Sequence[Span], longest: Seconds, pause: Seconds) -> tuple[Span, ...]:
    """Join neighbouring speech into chunks of at most ``longest``; a pause of ``pause`` or more always parts them.

    Where more speech than ``longest`` goes on without such a pause, it is parted at its longest pause that leaves
    neither side tiny, and speech without any pause is cut evenly.

    Args:
        speech: ordered, disjoint spans.
    """
    groups: list[list[Span]] = []
    for span in speech:
        if groups and span.start - groups[-1][-1].end < pause:
            groups[-1].append(span)
        else:
            groups.append([span])
    return tuple(chunk for group in groups for chunk in _part(group, longest))


def _part(group: list[Span], longest: Seconds) -> list[Span]:
    chunks: list[Span] = []
    waiting = [group]  # the earliest last; hours without a long pause would be too deep for recursion
    while waiting:
        group = waiting.pop()
        whole = Span(group[0].start, group[-1].end)
        if whole.duration <= longest:
            chunks.append(whole)
        elif len(group) == 1:
            pieces = int(-(-whole.duration // longest))
            edges = [whole.start + whole.duration * i / pieces for i in range(pieces + 1)]
            chunks += [Span(a, b) for a, b in pairwise(edges)]
        else:
            at = _best_pause(group, longest)
            waiting += [group[at:], group[:at]]
    return chunks


def _best_pause(group: list[Span], longest: Seconds) -> int:
    """The number of the span after the pause at which the group is best parted."""
    whole = Span(group[0].start, group[-1].end)

    def worth(at: int) -> tuple[Seconds, Seconds]:
        # a long pause is a good place; one near an end of the group leaves a scrap, which the recogniser reads badly;
        # of pauses that are alike to the millisecond the one nearest the middle
        shorter = min(group[at - 1].end - whole.start, whole.end - group[at].start)
        length = group[at].start - group[at - 1].end
        return round(length * min(1.0, shorter / (longest / 3)), 3), shorter

    return max(range(1, len(group)), key=worth)
