"""The diarizer ``auto``: Sortformer, or clustering if there are more speakers than Sortformer can distinguish."""

from __future__ import annotations

import logging
from typing import Protocol

from diarist.engines.nemo.clustering import load as load_clustering
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.sortformer import load_sortformer
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import Audio, Diarization, Progress, Seconds, SpeakerHints

logger = logging.getLogger(__name__)

FIRST_SHARE = 0.5
"""The share of the stage ``segmentation`` that Sortformer's progress covers if clustering may follow."""


class LimitedDiarizer(Diarizer, Protocol):
    """A diarizer with a maximum number of speakers and a maximum duration."""

    @property
    def speakers(self) -> int:
        """The maximum number of speakers that it can distinguish."""
        ...

    @property
    def longest(self) -> Seconds | None:
        """The maximum duration of a recording, or None if there is no limit."""
        ...


class AutoDiarizer:
    """Combines a diarizer that is better for few speakers with one for any number. Keeps no state between calls.

    If the first diarizer finds its maximum number of speakers, there may be more, and two people may share a label. If
    it finds fewer speakers than the caller asks for, it did not distinguish some of them. In both cases the second
    diarizer runs as well, and its result is used if it finds more speakers.
    """

    def __init__(self, few: LimitedDiarizer, many: Diarizer) -> None:
        self._few = few
        self._many = many

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        limit = self._few.speakers
        least, most = hints.bounds()
        if least > limit:
            return self._by(self._many, audio, hints, progress, f"at least {least} speakers are requested")
        longest = self._few.longest
        if longest is not None and audio.duration > longest:
            return self._by(self._many, audio, hints, progress, f"the recording is longer than {longest:.0f} s")
        if least == 1 and most is not None and most <= limit:
            return self._by(self._few, audio, hints, progress, f"at most {most} speakers are requested")
        return self._by_either(audio, hints, progress)

    def _by_either(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        first = self._few.diarize(audio, hints, _share(progress, 0.0, FIRST_SHARE))
        found, limit = len(first.speakers), self._few.speakers
        least, most = hints.bounds()
        exhausted = found == limit and (most is None or most > limit)
        if not exhausted and not 0 < found < least:
            progress("segmentation", 1.0)
            logger.info("Diarized by %s: it found %d speakers, and its limit is %d", first.diarizer, found, limit)
            return first
        second = self._many.diarize(audio, hints, _share(progress, FIRST_SHARE, 1.0))
        chosen = second if len(second.speakers) > found else first
        logger.info(
            "Diarized by %s: %s found %d speakers (%s), and %s found %d",
            chosen.diarizer, first.diarizer, found,
            "its limit" if exhausted else f"at least {least} are requested",
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
    """Return a progress that maps the stage ``segmentation`` to ``start``..``stop`` and passes other stages on."""

    def report(stage: str, done: float) -> None:
        progress(stage, start + (stop - start) * done if stage == "segmentation" else done)

    return report


def load(settings: Settings) -> Loaded[Diarizer]:
    """Load both diarizers, so that a problem with either of them is reported at the start.

    Raises:
        ModelError: If a model is unavailable or damaged.
        ConfigurationError: If a configuration, or a model that it names, cannot be used.
    """
    few, many = load_sortformer(settings), load_clustering(settings)
    return Loaded(AutoDiarizer(few, many.part), (few.info, *many.models), Runtime.of(settings).name)
