"""The diarizer ``auto``: Sortformer, or clustering if there are more speakers than Sortformer can distinguish."""

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

LIMITED_SHARE = 0.5
"""The share of the stage ``segmentation`` that Sortformer's progress covers if clustering may follow."""


class LimitedDiarizer(Diarizer, Protocol):
    """A diarizer with a maximum number of speakers and a maximum duration."""

    @property
    def max_speakers(self) -> int:
        """The maximum number of speakers that it can distinguish."""
        ...

    @property
    def max_duration(self) -> Seconds | None:
        """The maximum duration of a recording, or None if there is no limit."""
        ...


class AutoDiarizer:
    """Combines a diarizer that is better for few speakers with one for any number. Keeps no state between calls.

    If the first diarizer finds its maximum number of speakers, there may be more, and two people may share a label. If
    it finds fewer speakers than the caller asks for, it did not distinguish some of them. In both cases the second
    diarizer runs as well, and its result is used if it finds more speakers.
    """

    def __init__(self, limited: LimitedDiarizer, unlimited: Diarizer) -> None:
        self._limited = limited
        self._unlimited = unlimited

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        limit = self._limited.max_speakers
        min_speakers, max_speakers = hints.bounds()
        if min_speakers > limit:
            return self._run_one(
                self._unlimited, audio, hints, progress, f"at least {min_speakers} speakers are requested"
            )
        max_duration = self._limited.max_duration
        if max_duration is not None and audio.duration > max_duration:
            return self._run_one(
                self._unlimited, audio, hints, progress, f"the recording is longer than {max_duration:.0f} s"
            )
        if min_speakers == 1 and max_speakers is not None and max_speakers <= limit:
            return self._run_one(
                self._limited, audio, hints, progress, f"at most {max_speakers} speakers are requested"
            )
        return self._run_with_fallback(audio, hints, progress)

    def _run_with_fallback(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        first = self._limited.diarize(audio, hints, _scale_progress(progress, 0.0, LIMITED_SHARE))
        count, limit = len(first.speakers), self._limited.max_speakers
        min_speakers, max_speakers = hints.bounds()
        exhausted = count == limit and (max_speakers is None or max_speakers > limit)
        if not exhausted and not 0 < count < min_speakers:
            progress("segmentation", 1.0)
            logger.info("Diarized by %s: it found %d speakers, and its limit is %d", first.diarizer, count, limit)
            return first
        second = self._unlimited.diarize(audio, hints, _scale_progress(progress, LIMITED_SHARE, 1.0))
        chosen = second if len(second.speakers) > count else first
        logger.info(
            "Diarized by %s: %s found %d speakers (%s), and %s found %d",
            chosen.diarizer, first.diarizer, count,
            "its limit" if exhausted else f"at least {min_speakers} are requested",
            second.diarizer, len(second.speakers),
        )  # fmt: skip
        return chosen

    def _run_one(
        self, diarizer: Diarizer, audio: Audio, hints: SpeakerHints, progress: Progress, reason: str
    ) -> Diarization:
        diarization = diarizer.diarize(audio, hints, progress)
        logger.info("Diarized by %s: %s", diarization.diarizer, reason)
        return diarization


def _scale_progress(progress: Progress, start: float, stop: float) -> Progress:
    """Return a progress that maps the stage ``segmentation`` to ``start``..``stop`` and passes other stages on."""

    def report(stage: Stage, done: float) -> None:
        progress(stage, start + (stop - start) * done if stage == "segmentation" else done)

    return report


def load(settings: Settings) -> Loaded[Diarizer]:
    """Load both diarizers, so that a problem with either of them is reported at the start.

    Raises:
        ModelError: If a model is unavailable or damaged.
        ConfigurationError: If a configuration, or a model that it names, cannot be used.
    """
    limited, unlimited = load_sortformer(settings), load_clustering(settings)
    return Loaded(AutoDiarizer(limited, unlimited.part), (limited.info, *unlimited.models), Runtime.of(settings).name)
