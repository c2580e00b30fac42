"""The progress of the work on a recording as one fraction, and the duration of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from diarist.observability import tracing
from diarist.types import Progress, Stage, TimedStage, Timing

ItemT = TypeVar("ItemT")

WEIGHTS: Mapping[Stage, float] = {
    "decode": 0.02,
    "segmentation": 0.22,
    "embedding": 0.16,
    "clustering": 0.01,
    "recognition": 0.58,
    "attribution": 0.01,
}
"""The share of each stage in the total time of a recording without pauses, so that the progress advances evenly.

They were measured as processor time of the embedded engine with one thread and Whisper base, on conversations of 1, 5
and 20 minutes.
"""

_DIARIZATION: tuple[Stage, ...] = ("segmentation", "embedding", "clustering")


class ProgressMeter:
    """Combines the progress of the stages into one fraction that never falls, and measures the time of each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0.0
        self._channel = 0
        self._speech_shares: tuple[float, ...] = (1.0,)
        self._seconds: dict[TimedStage, float] = {}

    def set_channels(self, channels: int) -> None:
        """Set the number of channels, once it is known."""
        self._speech_shares = (1.0,) * channels

    def start_channel(self, channel: int) -> None:
        """Count the following reports as those of this channel. Each stage is done for one channel after the other."""
        self._channel = channel

    def set_speech_shares(self, shares: Sequence[float]) -> None:
        """Set the share of each channel that is recognized: the speech, once it is known.

        A share can exceed 1, because the cost of language detection is added to it.
        """
        self._speech_shares = tuple(shares)

    def report(self, stage: Stage, done: float) -> None:
        """Report that this share of a stage is done, 0..1."""
        shares = self._speech_shares
        recognition = [WEIGHTS["recognition"] * share / len(shares) for share in shares]
        diarization = sum(WEIGHTS[each] for each in _DIARIZATION)
        done = min(max(done, 0.0), 1.0)
        if stage == "decode":
            position = WEIGHTS[stage] * done
        elif stage in _DIARIZATION:
            before = sum(WEIGHTS[each] for each in _DIARIZATION[: _DIARIZATION.index(stage)])
            position = WEIGHTS["decode"] + (self._channel * diarization + before + WEIGHTS[stage] * done) / len(shares)
        elif stage == "recognition":
            position = WEIGHTS["decode"] + diarization
            position += sum(recognition[: self._channel]) + recognition[self._channel] * done
        else:
            position = WEIGHTS["decode"] + diarization + sum(recognition) + WEIGHTS[stage] * done
        whole = WEIGHTS["decode"] + diarization + sum(recognition) + WEIGHTS["attribution"]
        self._done = max(self._done, position / whole)
        self._progress(stage, self._done)

    def subrange(self, stage: Stage, start: float, end: float) -> Progress:
        """Return a callback for a part of a stage, which covers the stage's progress from ``start`` to ``end``."""
        return lambda _, done: self.report(stage, start + (end - start) * min(max(done, 0.0), 1.0))

    def finish(self) -> None:
        """Report that everything is done."""
        self._progress("attribution", 1.0)

    @contextmanager
    def timed(self, stage: TimedStage) -> Iterator[None]:
        """Add the duration of the context to the stage."""
        started = time.perf_counter()
        try:
            with tracing.span(stage):
                yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started

    def timed_items(self, stage: TimedStage, items: Iterator[ItemT]) -> Iterator[ItemT]:
        """Yield the items, and add the time to produce them to the stage, but not the time to consume them."""
        while True:
            with self.timed(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @property
    def timings(self) -> tuple[Timing, ...]:
        return tuple(Timing(stage, seconds) for stage, seconds in self._seconds.items())
