"""How far the work on a recording is, as one fraction, and how long each of its stages took."""

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
"""Share of the time that each stage takes where somebody speaks all the time: what makes progress move evenly.

Processor time of the embedded engine with one thread, Whisper base, on 1, 5 and 20 minutes of conversation.
"""


class ProgressMeter:
    """Makes one fraction that never falls of the stages' own, and notes how long each took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0.0
        self._channel, self._channels = 0, 1
        self._weights = WEIGHTS
        self._seconds: dict[TimedStage, float] = {}

    def share(self, channel: int, channels: int) -> None:
        """The stages that follow are those of one of several channels."""
        self._channel, self._channels = channel, channels
        self._weights = WEIGHTS

    def spoken(self, share: float) -> None:
        """The part of the recording in which somebody speaks, once it is known: nothing else is recognised.

        Above 1 where finding out the language adds to it.
        """
        self._weights = {**WEIGHTS, "recognition": WEIGHTS["recognition"] * share}

    def note(self, stage: Stage, done: float) -> None:
        """A stage is done to this part of it, 0..1."""
        names = list(self._weights)
        before = sum(self._weights[name] for name in names[: names.index(stage)])
        whole = (before + self._weights[stage] * min(max(done, 0.0), 1.0)) / sum(self._weights.values())
        if self._channels > 1 and stage not in ("decode", "attribution"):
            first, last = WEIGHTS["decode"], 1.0 - WEIGHTS["attribution"]
            whole = first + (self._channel * (last - first) + whole - first) / self._channels
        self._done = max(self._done, whole)
        self._progress(stage, self._done)

    def part(self, stage: Stage, before: float, after: float) -> Progress:
        """For a piece of a stage that is done to ``before`` when the piece begins, and to ``after`` at its end."""
        return lambda _, done: self.note(stage, before + (after - before) * min(max(done, 0.0), 1.0))

    def finish(self) -> None:
        """All is done."""
        self._progress("attribution", 1.0)

    @contextmanager
    def timed(self, stage: TimedStage) -> Iterator[None]:
        """What is done within takes that stage's time."""
        started = time.perf_counter()
        try:
            with tracing.span(stage):
                yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started

    def each(self, stage: TimedStage, items: Iterator[ItemT]) -> Iterator[ItemT]:
        """The same items; making them takes that stage's time, and what is done with them does not."""
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
