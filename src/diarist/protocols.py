"""The seams: what a diarizer, a recogniser and an engine are, whoever makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from diarist.types import Audio, Diarization, ModelInfo, Progress, Recognition, Span, SpeakerHints

PartT_co = TypeVar("PartT_co", covariant=True)


class Diarizer(Protocol):
    """Says who spoke when."""

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        """Find the turns.

        Deterministic; keeps no state between calls. Silence gives a diarization without turns. Where the hints give an
        exact number of speakers, that many labels come back if the speech can be divided so. Labels are
        ``SPEAKER_00``, ``SPEAKER_01`` ... in the order in which they first speak. ``progress`` is called with stages
        whose ``done`` never falls.

        Raises:
            Cancelled: ``progress`` raised it.
        """
        ...


class Recognizer(Protocol):
    """Says what was said."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it knows, ISO 639-1, in order; empty where the model does not say: it then takes any."""
        ...

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        """Find the words within ``speech`` (ordered, disjoint spans that hold speech).

        Word spans lie within the recording, in order of start. No speech gives no words.

        Raises:
            Cancelled: ``progress`` raised it.
            InvalidOption: the model does not know ``language``.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Loaded(Generic[PartT_co]):
    """A diarizer or a recogniser, with what it is made of."""

    part: PartT_co
    models: tuple[ModelInfo, ...]
    device: str = "cpu"
    """What it runs on: ``cpu``, or a GPU by its number and name."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A diarizer and a recogniser, loaded."""

    name: str
    diarizer: Diarizer
    recognizer: Recognizer
    models: tuple[ModelInfo, ...]
    device: str = "cpu"
    """What it runs on: ``cpu``, or a GPU by its number and name."""
