"""Speech in chunks for the recognizer: it is cut at its longest pauses, or where it is quietest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from diarist.types import Audio, Seconds, Span


def pack(speech: Sequence[Span], max_length: Seconds, max_pause: Seconds) -> tuple[Span, ...]:
    """Join neighboring speech into chunks of at most ``max_length``.

    Longer speech is split at its longest pause that leaves neither side tiny, and speech without any pause is split
    evenly.

    Args:
        speech: Ordered, disjoint spans.
        max_length: The maximum length of a chunk.
        max_pause: A pause of this length or more always ends a chunk.
    """
    groups: list[list[Span]] = []
    for span in speech:
        if groups and span.start - groups[-1][-1].end < max_pause:
            groups[-1].append(span)
        else:
            groups.append([span])
    return tuple(chunk for group in groups for chunk in _split(group, max_length))


def _split(group: list[Span], max_length: Seconds) -> list[Span]:
    chunks: list[Span] = []
    pending = [group]  # a stack, earliest on top; hours without a long pause would exceed the recursion limit
    while pending:
        group = pending.pop()
        whole = Span(group[0].start, group[-1].end)
        if whole.duration <= max_length:
            chunks.append(whole)
        elif len(group) == 1:
            parts = int(-(-whole.duration // max_length))
            edges = [whole.start + whole.duration * i / parts for i in range(parts + 1)]
            chunks += [Span(a, b) for a, b in pairwise(edges)]
        else:
            at = _best_pause(group, max_length)
            pending += [group[at:], group[:at]]
    return chunks


def _best_pause(group: list[Span], max_length: Seconds) -> int:
    """Return the index of the span after the pause at which the group is best split."""
    whole = Span(group[0].start, group[-1].end)

    def score(at: int) -> tuple[Seconds, Seconds]:
        # A long pause is good. One near an end of the group leaves a short chunk, which the recognizer reads badly. Of
        # pauses that are equal to the millisecond, the one nearest the middle is chosen.
        shorter = min(group[at - 1].end - whole.start, whole.end - group[at].start)
        length = group[at].start - group[at - 1].end
        return round(length * min(1.0, shorter / (max_length / 3)), 3), shorter

    return max(range(1, len(group)), key=score)


def quietest_position(audio: Audio, within: Span, length: Seconds = 0.1, hop: Seconds = 0.01) -> Seconds:
    """Return the middle of the quietest tenth of a second, or of the whole span if it is not longer than that."""
    step = round(hop * audio.rate)
    samples = audio.cut(within).samples
    hops = len(samples) // step
    energy = np.square(samples[: hops * step], dtype=np.float64).reshape(hops, step).sum(axis=1)
    width = round(length / hop)
    if hops <= width:
        return within.middle
    loudness = np.convolve(energy, np.ones(width), mode="valid")  # (hops - width + 1,)
    # Of equally quiet positions the one nearest the middle is chosen, as in digital silence.
    candidates = np.flatnonzero(loudness <= loudness.min() * (1 + 1e-9) + 1e-12)
    best = candidates[np.abs(candidates - len(loudness) // 2).argmin()]
    return within.start + (float(best) + width / 2) * hop
