"""The interfaces of diarizers, recognizers and engines."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from diarist.types import Audio, Diarization, ModelInfo, Progress, Recognition, Seconds, Span, SpeakerHints

PartT_co = TypeVar("PartT_co", covariant=True)


class Diarizer(Protocol):
    """Finds who spoke when."""

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        """Return the turns of a recording.

        The result is deterministic, and no state is kept between calls. Silence gives a diarization without turns. If
        the hints give an exact number of speakers, the result has that number of speakers if the speech can be divided
        among them. The labels are ``SPEAKER_00``, ``SPEAKER_01`` ... in the order in which the speakers first speak.
        Within a stage, the ``done`` that ``progress`` is called with never falls.

        Raises:
            Cancelled: ``progress`` raised it.
        """
        ...


class Recognizer(Protocol):
    """Finds what was said."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The supported languages as sorted ISO 639-1 codes.

        It is empty if the model does not list its languages; any language is then accepted.
        """
        ...

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        """Return the words within ``speech`` (ordered, disjoint spans that contain speech).

        The spans of words are within the recording, in order of start. No speech gives no words. No samples are read
        more than ``RECOGNITION_REACH`` before the first or after the last span of ``speech``.

        Raises:
            Cancelled: ``progress`` raised it.
            InvalidOption: The model does not support ``language``.
        """
        ...


@runtime_checkable
class LanguageDetector(Protocol):
    """A recognizer that can detect the language without recognizing the words."""

    def detect(self, audio: Audio, speech: Sequence[Span]) -> tuple[str, float]:
        """Return the language and its probability, as ``recognize`` does for the same speech (not empty)."""
        ...


LANGUAGE_DETECTION_COST_S: Seconds = 16.0
"""Detecting the language takes as long as recognizing this much speech."""

RECOGNITION_REACH: Seconds = 1.0
"""How far around the given speech a recognizer may read, in seconds."""

ChunkStage: TypeAlias = Literal["segmentation", "embedding", "recognition"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the work on one channel, which any machine that has loaded the same engine can process.

    ``diarist.engines.distributed_chunks.perform`` processes it. The result is identical on all machines if the samples
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
    """A loaded diarizer or recognizer, with its models."""

    part: PartT_co
    models: tuple[ModelInfo, ...]
    device: str = "cpu"
    """The device that it runs on: ``cpu``, ``coreml``, or the number and name of a GPU."""

    notice: str | None = None
    """Why it does not run on a GPU that is there, and what to do about it."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A loaded diarizer and a loaded recognizer."""

    name: str
    diarizer: Diarizer
    recognizer: Recognizer
    models: tuple[ModelInfo, ...]
    device: str = "cpu"
    """The device that it runs on: ``cpu``, ``coreml``, or the number and name of a GPU."""

    notices: tuple[str, ...] = ()
    """Why parts of it do not run on a GPU that is there, and what to do about it."""
