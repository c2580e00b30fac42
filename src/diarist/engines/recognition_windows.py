"""The windows that a NeMo recogniser hears one by one: speech cut at its pauses, with a little around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from diarist.engines.chunking import pack
from diarist.types import Audio, Seconds, Span


@dataclass(frozen=True, slots=True)
class Cutting:
    """Where speech is cut."""

    longest: Seconds = 30.0
    """Of a window's speech. NeMo's models are trained on up to 20 to 40 s; the memory of their attention grows with
    the square of the length."""

    pause: Seconds = 2.0
    """A longer pause ends a window: silence only costs time."""

    margin: Seconds = 0.3
    """What is heard before and after the speech, but never what another window hears."""

    search: Seconds = 1.0
    """How far from the middle a cut through speech without a pause may be, to be at a quiet place."""


def windows(audio: Audio, speech: Sequence[Span], cutting: Cutting = Cutting()) -> tuple[Span, ...]:
    """Disjoint windows in order that hold all the speech.

    Args:
        audio: the recording.
        speech: ordered, disjoint spans.
        cutting: where to cut.
    """
    chunks = pack([span.clamp(0.0, audio.duration) for span in speech], cutting.longest, cutting.pause)
    if not chunks:
        return ()
    meetings = [_meeting(audio, before, after, cutting) for before, after in pairwise(chunks)]
    starts = [max(0.0, chunks[0].start - cutting.margin), *(start for _, start in meetings)]
    ends = [*(end for end, _ in meetings), min(audio.duration, chunks[-1].end + cutting.margin)]
    return tuple(Span(start, end) for start, end in zip(starts, ends, strict=True) if end > start)


def _meeting(audio: Audio, before: Span, after: Span, cutting: Cutting) -> tuple[Seconds, Seconds]:
    """Where the window of one chunk ends and that of the next one starts."""
    if after.start > before.end:
        middle = (before.end + after.start) / 2
        return min(before.end + cutting.margin, middle), max(after.start - cutting.margin, middle)
    reach = min(cutting.search, before.duration / 2, after.duration / 2)
    at = _quietest(audio, Span(before.end - reach, before.end + reach))
    return at, at


def _quietest(audio: Audio, within: Span, length: Seconds = 0.1, hop: Seconds = 0.01) -> Seconds:
    """The middle of the quietest tenth of a second; the middle of it all where that is no longer."""
    step = round(hop * audio.rate)
    samples = audio.cut(within).samples
    hops = len(samples) // step
    energy = np.square(samples[: hops * step], dtype=np.float64).reshape(hops, step).sum(axis=1)
    wide = round(length / hop)
    if hops <= wide:
        return within.middle
    loudness = np.convolve(energy, np.ones(wide), mode="valid")  # (hops - wide + 1,)
    # of places that are alike the one nearest the middle, as in digital silence
    candidates = np.flatnonzero(loudness <= loudness.min() * (1 + 1e-9) + 1e-12)
    best = candidates[np.abs(candidates - len(loudness) // 2).argmin()]
    return within.start + (float(best) + wide / 2) * hop
