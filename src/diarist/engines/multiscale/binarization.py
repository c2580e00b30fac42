"""From the probability of speech in each frame to speech segments.

Hysteresis, padding and minimum durations work as in NeMo's VAD post-processing and have its names. They go back to
Gelly and Gauvain, "Optimization of RNN-based speech activity detection" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.engines.speaker_activity import Grid
from diarist.types import Seconds, Span

_ROUNDING: Seconds = 1e-6
"""Times that differ by less are equal: 0.1 + 0.2 is slightly above 0.3."""


@dataclass(frozen=True, slots=True)
class Binarization:
    """The rule for the start and end of speech. The names are those of NeMo's configurations."""

    onset: float = 0.5
    """Speech starts where the probability rises above this."""

    offset: float = 0.5
    """Speech ends where the probability falls below this."""

    pad_onset: Seconds = 0.0
    """Time that is added before each segment, or removed if negative."""

    pad_offset: Seconds = 0.0
    """Time that is added after each segment, or removed if negative."""

    min_duration_on: Seconds = 0.0
    """Shorter segments are dropped."""

    min_duration_off: Seconds = 0.0
    """Shorter pauses are closed."""

    filter_speech_first: bool = True
    """Whether short segments are dropped before short pauses are closed, or after."""


def speech_spans(
    probability: NDArray[np.float32], grid: Grid, rule: Binarization, duration: Seconds
) -> tuple[Span, ...]:
    """Return the speech: ordered, disjoint spans within the recording.

    Args:
        probability: The probability of speech, (frames,).
        grid: The grid of the frames.
        rule: The rule for the start and end of speech.
        duration: The duration of the recording.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], _hysteresis(probability, rule), [False]]).astype(np.int8)))
    padded = [
        (max(grid.time(first) - rule.pad_onset, 0.0), min(grid.time(stop) + rule.pad_offset, duration))
        for first, stop in edges.reshape(-1, 2)
    ]
    spans = _merged([Span(start, end) for start, end in padded if end - start > _ROUNDING], 0.0)
    steps = [_long_enough, _without_short_pauses]
    for step in steps if rule.filter_speech_first else reversed(steps):
        spans = step(spans, rule)
    return tuple(spans)


def _hysteresis(probability: NDArray[np.float32], rule: Binarization) -> NDArray[np.bool_]:
    """Return frames from one above onset until one below offset, bool (frames,)."""
    rises, falls = probability > rule.onset, probability < rule.offset
    decided = rises | falls
    # If onset is below offset, both can be true: the state then toggles.
    if (rises & falls).any():
        on, state = np.zeros(len(probability), dtype=bool), False
        for frame in range(len(probability)):
            state = not falls[frame] if state else bool(rises[frame])
            on[frame] = state
        return on
    last = np.maximum.accumulate(np.where(decided, np.arange(len(probability)), -1))
    on = (last >= 0) & rises[np.maximum(last, 0)]
    return np.asarray(on, dtype=bool)


def _merged(spans: Sequence[Span], pause: Seconds) -> list[Span]:
    """Merge spans that touch, or that are less than ``pause`` apart."""
    merged: list[Span] = []
    for span in spans:
        between = span.start - merged[-1].end if merged else np.inf
        if between < max(_ROUNDING, pause - _ROUNDING):
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def _long_enough(spans: Sequence[Span], rule: Binarization) -> list[Span]:
    return [span for span in spans if span.duration >= rule.min_duration_on - _ROUNDING]


def _without_short_pauses(spans: Sequence[Span], rule: Binarization) -> list[Span]:
    return _merged(spans, rule.min_duration_off)
