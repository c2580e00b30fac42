"""Speech in chunks for the recognizer: it is cut at long pauses, or where it is quietest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from diarist.types import Audio, Seconds, Span

CUT_COST = 2.0
"""The cost of a cut within speech, relative to that of one more chunk. It halves with every 0.28 s of a pause."""

CUT_COST_DECAY_S: Seconds = 0.4

SHORT_CHUNK_COST = 0.5
"""The additional cost of a chunk that is almost nothing; it falls to zero at a third of the maximum length."""


def pack(speech: Sequence[Span], max_length: Seconds, max_pause: Seconds) -> tuple[Span, ...]:
    """Join neighboring speech into chunks of at most ``max_length``, with the lowest total cost.

    Few chunks take the least time to recognize, cuts at long pauses divide the fewest words and sentences, and short
    chunks are recognized badly. A dynamic program finds the best compromise for the whole recording, in time that is
    linear in its length. Speech that is longer than a chunk and has no pause is split evenly.

    Args:
        speech: Ordered, disjoint spans.
        max_length: The maximum length of a chunk.
        max_pause: A pause of this length or more always ends a chunk.
    """
    groups: list[list[Span]] = []
    for span in speech:
        for part in _even_parts(span, max_length):
            if groups and part.start - groups[-1][-1].end < max_pause:
                groups[-1].append(part)
            else:
                groups.append([part])
    return tuple(chunk for group in groups for chunk in _cheapest_chunks(group, max_length))


def _even_parts(span: Span, max_length: Seconds) -> list[Span]:
    parts = max(1, math.ceil(span.duration / max_length))
    edges = [span.start + span.duration * i / parts for i in range(parts)]
    return [Span(start, end) for start, end in pairwise([*edges, span.end])]


def _cheapest_chunks(spans: Sequence[Span], max_length: Seconds) -> list[Span]:
    costs = [0.0]  # costs[stop] is the lowest cost of all spans before stop, and firsts[stop] begins their last chunk
    firsts = [0]
    for stop in range(1, len(spans) + 1):
        cost, first = min(
            (costs[first] + _chunk_cost(spans, first, stop, max_length), -first)
            for first in _possible_firsts(spans, stop, max_length)
        )
        costs.append(cost)
        firsts.append(-first)
    chunks: list[Span] = []
    stop = len(spans)
    while stop > 0:
        chunks.append(Span(spans[firsts[stop]].start, spans[stop - 1].end))
        stop = firsts[stop]
    return chunks[::-1]


def _possible_firsts(spans: Sequence[Span], stop: int, max_length: Seconds) -> Iterator[int]:
    """Yield the spans with which a chunk that ends before ``stop`` may begin, the latest first; always one."""
    yield stop - 1
    for first in range(stop - 2, -1, -1):
        if spans[stop - 1].end - spans[first].start > max_length:
            return
        yield first


def _chunk_cost(spans: Sequence[Span], first: int, stop: int, max_length: Seconds) -> float:
    """Return the cost of a chunk and of the cut before it."""
    duration = spans[stop - 1].end - spans[first].start
    cost = 1.0 + SHORT_CHUNK_COST * max(0.0, 1.0 - duration / (max_length / 3))
    if first > 0:
        cost += CUT_COST * math.exp(-(spans[first].start - spans[first - 1].end) / CUT_COST_DECAY_S)
    return cost


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
