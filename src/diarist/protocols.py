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
    """A part of the work on one channel, which any machine that has loaded the same engine can process.

    ``diarist.engines.chunk_processing.perform`` processes it. The result is identical on all machines if the samples
    are.
    """

    stage: ChunkStage
    first_sample: int
    """The first sample of the decoded channel (``SAMPLE_RATE``, float32) that is read."""

    stop_sample: int
    """The end of the samples that are read; this one is not read any more."""

    channel_samples: int
    """The length of the whole channel."""

    work: bytes
    """The parameters of the stage, as ASCII JSON."""


class ChunkProgress(Protocol):
    """A callback that receives the index of a chunk, and the fraction of it that is done, 0..1.

    It raises ``Cancelled`` if the work must stop. Code that waits should call it about once a second even without
    progress, so that the work can be stopped meanwhile.
    """

    def __call__(self, index: int, done: float = 1.0) -> None: ...


ScatterChunks: TypeAlias = Callable[[Sequence[Chunk], ChunkProgress], Generator[bytes, None, None]]
"""Processes chunks on any machine and yields their results in order.

The caller closes the generator if it does not need the remaining results.
"""


class Scatter(Protocol):
    """Distributes the work on one recording over several machines."""

    def accept(self, channels: Sequence[Audio]) -> bool:
        """Make the decoded channels available to other machines. This is called once, before anything else.

        Returns:
            False if the recording is too short to be distributed, and all of it must be processed here.
        """
        ...

    def __call__(self, channel: int, chunks: Sequence[Chunk], progress: ChunkProgress) -> Generator[bytes, None, None]:
        """Yield the result of ``perform`` for each chunk of a channel, in order.

        Exceptions that ``progress`` raises are passed on. If the caller closes the generator, the remaining chunks need
        not be processed.
        """
        ...


@runtime_checkable
class DistributedDiarizer(Protocol):
    """A diarizer whose work can be distributed in chunks."""

    def diarize_distributed(
        self, audio: Audio, hints: SpeakerHints, progress: Progress, scatter: ScatterChunks
    ) -> Diarization:
        """Do the same as ``diarize``, with an identical result, but let ``scatter`` process the chunks."""
        ...

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Process one chunk and return its result.

        Args:
            audio: as long as the whole channel, and zero outside of the samples that the chunk reads.
            chunk: a chunk of the stage ``segmentation`` or ``embedding``.
            progress: called with the stage and the fraction of the chunk that is done, 0..1.
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
