"""The seams: what a diarizer, a recogniser and an engine are, whoever makes them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from diarist.types import Audio, Diarization, ModelInfo, Progress, Recognition, Seconds, Span, SpeakerHints

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

        Word spans lie within the recording, in order of start. No speech gives no words. Nothing is read that lies more
        than ``RECOGNITION_REACH`` before the first or after the last of ``speech``.

        Raises:
            Cancelled: ``progress`` raised it.
            InvalidOption: the model does not know ``language``.
        """
        ...


@runtime_checkable
class LanguageDetector(Protocol):
    """A recogniser that can say what language it hears without finding the words."""

    def detect(self, audio: Audio, speech: Sequence[Span]) -> tuple[str, float]:
        """The language and its probability, as ``recognize`` would find them for the same speech (not empty)."""
        ...


LANGUAGE_DETECTION_COST_S: Seconds = 16.0
"""Detecting the language takes as long as recognizing this much speech."""

RECOGNITION_REACH: Seconds = 1.0
"""What a recogniser may hear around the speech that it is given."""

ChunkStage: TypeAlias = Literal["segmentation", "embedding", "recognition"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the work on one channel that any machine can do which has loaded the same engine.

    ``diarist.engines.chunk_processing.perform`` does it. Its result is the same to the bit wherever it is done, if the
    samples are.
    """

    stage: ChunkStage
    first_sample: int
    """Of the channel, as decoded (``SAMPLE_RATE``, float32): nothing before it is read."""

    stop_sample: int
    """Nothing from here on is read."""

    channel_samples: int
    """Length of the whole channel."""

    work: bytes
    """What is to be done: JSON, in ASCII."""


class ChunkProgress(Protocol):
    """Called with the number of a portion, counted from 0, when it is done, and with less than 1 on the way.

    Raises ``Cancelled`` where the work is to stop. Calling it once a second without anything new does no harm, and lets
    the work be stopped while it waits.
    """

    def __call__(self, index: int, done: float = 1.0) -> None: ...


ScatterChunks: TypeAlias = Callable[[Sequence[Chunk], ChunkProgress], Generator[bytes, None, None]]
"""Has portions done, anywhere; gives their results in order. Closed where nobody wants the rest."""


class Scatter(Protocol):
    """Has other machines do portions of the work on a recording."""

    def accept(self, channels: Sequence[Audio]) -> bool:
        """Called once, before all else: make the decoded channels available to whoever does portions of them.

        Returns:
            False where all is to be done here, for there is too little of it, or nobody else.
        """
        ...

    def __call__(self, channel: int, chunks: Sequence[Chunk], progress: ChunkProgress) -> Generator[bytes, None, None]:
        """What ``perform`` makes of each portion of a channel, in order.

        What ``progress`` raises goes through. The generator is closed where the rest is not wanted any more: whatever
        of it is still to be done need not be.
        """
        ...


@runtime_checkable
class DistributedDiarizer(Protocol):
    """A diarizer that can have portions of its work done elsewhere."""

    def diarize_distributed(
        self, audio: Audio, hints: SpeakerHints, progress: Progress, scatter: ScatterChunks
    ) -> Diarization:
        """As ``diarize``, and with the same result to the bit, with its portions done by ``scatter``."""
        ...

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Do one portion.

        Args:
            audio: of the length of the whole channel; zeros but for what the portion reads.
            portion: of the stages ``segmentation`` and ``embedding``.
            progress: called with the stage and the part of the portion that is done, 0..1.
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
