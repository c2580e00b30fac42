"""Sortformer where it can do it, clustering where there are more speakers than Sortformer can tell apart."""

from __future__ import annotations

import logging
from typing import Protocol

from diarist.engines.nemo.clustering import load as load_clustering
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.sortformer import load_sortformer
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import Audio, Diarization, Progress, Seconds, SpeakerHints, Stage

logger = logging.getLogger(__name__)

FIRST_SHARE = 0.5
"""Share of the stage `segmentation` that is Sortformer's where clustering may follow."""


class LimitedDiarizer(Diarizer, Protocol):
    """A diarizer for so many speakers and so much time."""

    @property
    def speakers(self) -> int:
        """The most that it tells apart."""
        ...

    @property
    def longest(self) -> Seconds | None:
        """The longest recording that it takes, or None where there is no limit."""
        ...


class AutoDiarizer:
    """One diarizer that is better for few speakers, and one for any number. Keeps no state between calls.

    Where the first finds as many speakers as it can, it may have run out of them, and two people may share a label;
    where it finds fewer than the caller knows of, it did not tell some apart. Either way the second counts again, and
    is believed if it finds more.
    """

    def __init__(self, few: LimitedDiarizer, many: Diarizer) -> None:
        self._few = few
        self._many = many

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        limit = self._few.speakers
        least, most = hints.bounds()
        if least > limit:
            return self._by(self._many, audio, hints, progress, f"at least {least} speakers are asked for")
        longest = self._few.longest
        if longest is not None and audio.duration > longest:
            return self._by(self._many, audio, hints, progress, f"over {longest:.0f} s")
        if least == 1 and most is not None and most <= limit:
            return self._by(self._few, audio, hints, progress, f"at most {most} speakers are asked for")
        return self._by_either(audio, hints, progress)

    def _by_either(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        first = self._few.diarize(audio, hints, _share(progress, 0.0, FIRST_SHARE))
        found, limit = len(first.speakers), self._few.speakers
        least, most = hints.bounds()
        exhausted = found == limit and (most is None or most > limit)
        if not exhausted and not 0 < found < least:
            progress("segmentation", 1.0)
            logger.info("Diarized by %s: %d of %d speakers found", first.diarizer, found, limit)
            return first
        second = self._many.diarize(audio, hints, _share(progress, FIRST_SHARE, 1.0))
        chosen = second if len(second.speakers) > found else first
        logger.info(
            "Diarized by %s: %s finds %d speakers where %s, and %s finds %d",
            chosen.diarizer, first.diarizer, found,
            "it can find no more" if exhausted else f"at least {least} are asked for",
            second.diarizer, len(second.speakers),
        )  # fmt: skip
        return chosen

    def _by(
        self, diarizer: Diarizer, audio: Audio, hints: SpeakerHints, progress: Progress, reason: str
    ) -> Diarization:
        diarization = diarizer.diarize(audio, hints, progress)
        logger.info("Diarized by %s: %s", diarization.diarizer, reason)
        return diarization


def _share(progress: Progress, start: float, stop: float) -> Progress:
    """Reports ``start`` to ``stop`` of the stage that both diarizers have, and other stages as they are."""

    def report(stage: Stage, done: float) -> None:
        progress(stage, start + (stop - start) * done if stage == "segmentation" else done)

    return report


def load(settings: Settings) -> Loaded[Diarizer]:
    """Both, so that what is wrong with either shows at once.

    Raises:
        ModelError: a model could not be had, or is damaged.
        ConfigurationError: a configuration, or a model for it, cannot be used.
    """
    few, many = load_sortformer(settings), load_clustering(settings)
    return Loaded(AutoDiarizer(few, many.part), (few.info, *many.models), Runtime.of(settings).name)
