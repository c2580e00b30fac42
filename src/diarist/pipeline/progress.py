"""The progress of the work on a recording as one fraction, and the duration of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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


class ProgressMeter:
    """Combines the progress of the stages into one fraction that never falls, and measures the time of each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0.0
        self._channel, self._channels = 0, 1
        self._weights = WEIGHTS
        self._seconds: dict[TimedStage, float] = {}

    def start_channel(self, channel: int, channels: int) -> None:
        """Count the following stages as those of one of several channels."""
        self._channel, self._channels = channel, channels
        self._weights = WEIGHTS

    def set_speech_share(self, share: float) -> None:
        """Set the share of the recording that is recognized: the speech, once it is known.

        The share can exceed 1, because the cost of language detection is added to it.
        """
        self._weights = {**WEIGHTS, "recognition": WEIGHTS["recognition"] * share}

    def report(self, stage: Stage, done: float) -> None:
        """Report that this share of a stage is done, 0..1."""
        names = list(self._weights)
        before = sum(self._weights[name] for name in names[: names.index(stage)])
        total = (before + self._weights[stage] * min(max(done, 0.0), 1.0)) / sum(self._weights.values())
        if self._channels > 1 and stage not in ("decode", "attribution"):
            first, last = WEIGHTS["decode"], 1.0 - WEIGHTS["attribution"]
            total = first + (self._channel * (last - first) + total - first) / self._channels
        self._done = max(self._done, total)
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
