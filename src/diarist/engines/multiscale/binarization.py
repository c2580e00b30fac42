"""From the probability of speech in each frame to stretches of speech.

Hysteresis, padding and shortest durations as NeMo's VAD post-processing has them, with its names; they go back to
Gelly and Gauvain, "Optimization of RNN-based speech activity detection" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.engines.fusion import Grid
from diarist.types import Seconds, Span

_ROUNDING: Seconds = 1e-6
"""Times that differ by less are the same: 0.1 + 0.2 is a hair above 0.3."""


@dataclass(frozen=True, slots=True)
class Binarization:
    """When speech starts and ends. The names are those of NeMo's configurations."""

    onset: float = 0.5
    """Speech starts where the probability rises above this."""

    offset: float = 0.5
    """It ends where the probability falls below this."""

    pad_onset: Seconds = 0.0
    """Added before each stretch; negative takes away."""

    pad_offset: Seconds = 0.0
    """Added after each stretch; negative takes away."""

    min_duration_on: Seconds = 0.0
    """Shorter stretches are dropped."""

    min_duration_off: Seconds = 0.0
    """Shorter pauses are closed."""

    filter_speech_first: bool = True
    """Whether short stretches are dropped before short pauses are closed, or after."""


def speech_spans(
    probability: NDArray[np.float32], grid: Grid, rule: Binarization, duration: Seconds
) -> tuple[Span, ...]:
    """Where there is speech: ordered, disjoint, within the recording.

    Args:
        probability: of speech, (frames,).
        grid: what the frames are.
        rule: when it starts and ends.
        duration: of the recording.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], _on(probability, rule), [False]]).astype(np.int8)))
    padded = [
        (max(grid.time(first) - rule.pad_onset, 0.0), min(grid.time(stop) + rule.pad_offset, duration))
        for first, stop in edges.reshape(-1, 2)
    ]
    spans = _joined([Span(start, end) for start, end in padded if end - start > _ROUNDING], 0.0)
    steps = [_long_enough, _without_short_pauses]
    for step in steps if rule.filter_speech_first else reversed(steps):
        spans = step(spans, rule)
    return tuple(spans)


def _on(probability: NDArray[np.float32], rule: Binarization) -> NDArray[np.bool_]:
    """On from above onset until below offset, bool (frames,)."""
    rises, falls = probability > rule.onset, probability < rule.offset
    decided = rises | falls
    # Where onset lies below offset both can hold; what is on then goes off, and what is off goes on.
    if (rises & falls).any():
        on, state = np.zeros(len(probability), dtype=bool), False
        for frame in range(len(probability)):
            state = not falls[frame] if state else bool(rises[frame])
            on[frame] = state
        return on
    last = np.maximum.accumulate(np.where(decided, np.arange(len(probability)), -1))
    on = (last >= 0) & rises[np.maximum(last, 0)]
    return np.asarray(on, dtype=bool)


def _joined(spans: Sequence[Span], pause: Seconds) -> list[Span]:
    """Spans that touch, or have a pause of less than ``pause`` between them, as one."""
    joined: list[Span] = []
    for span in spans:
        between = span.start - joined[-1].end if joined else np.inf
        if between < max(_ROUNDING, pause - _ROUNDING):
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined


def _long_enough(spans: Sequence[Span], rule: Binarization) -> list[Span]:
    return [span for span in spans if span.duration >= rule.min_duration_on - _ROUNDING]


def _without_short_pauses(spans: Sequence[Span], rule: Binarization) -> list[Span]:
    return _joined(spans, rule.min_duration_off)
