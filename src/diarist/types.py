"""The facts that the steps hand to each other: spans, words, turns, transcripts. Immutable, no I/O.

Times are seconds as ``float`` from the start of the recording. Any other unit is in the name.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diarist.errors import InvalidOption

Seconds: TypeAlias = float
Samples: TypeAlias = NDArray[np.float32]

SAMPLE_RATE = 16_000
"""Samples per second of everything behind the decoder."""

Stage: TypeAlias = Literal["decode", "segmentation", "embedding", "clustering", "recognition", "attribution"]
"""The stages that report progress, in the order in which they run."""

TimedStage: TypeAlias = Literal["decode", "diarization", "recognition", "attribution"]
"""The stages whose duration is measured. ``diarization`` covers ``segmentation``, ``embedding`` and ``clustering``,
since not every diarizer has all three."""

Progress: TypeAlias = Callable[[Stage, float], None]
"""Called as ``progress(stage, done)`` with ``done`` in 0..1 of that stage; raises ``Cancelled`` to stop the work."""

StatusProgress: TypeAlias = Callable[[str, float], None]
"""A ``Progress`` that also accepts states outside the pipeline, such as ``download`` or ``loading``."""

ChannelMode: TypeAlias = Literal["mix", "separate"]

MAX_SPEAKERS = 100
"""The most speakers that a hint may ask for."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of time. Ordered by start, then end; refuses an end before its start and values that are not finite."""

    start: Seconds
    end: Seconds

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"span of {self.start} to {self.end} s is not finite")
        if self.end < self.start:
            raise ValueError(f"span ends at {self.end} s, before its start at {self.start} s")

    @property
    def duration(self) -> Seconds:
        return self.end - self.start

    @property
    def middle(self) -> Seconds:
        return (self.start + self.end) / 2

    def overlap(self, other: Span) -> Seconds:
        """Seconds that both spans cover; 0 where they only touch or lie apart."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))

    def gap(self, other: Span) -> Seconds:
        """Seconds between the two spans; 0 where they touch or overlap."""
        return max(0.0, max(self.start, other.start) - min(self.end, other.end))

    def shift(self, by: Seconds) -> Span:
        return Span(self.start + by, self.end + by)

    def clamp(self, start: Seconds, end: Seconds) -> Span:
        """The nearest span that lies within ``start`` and ``end``."""
        return Span(min(max(self.start, start), end), min(max(self.end, start), end))


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Mono audio: float32 samples of shape (samples,) in -1..1.

    Those of a long recording lie in a file that is mapped into memory. What is taken of it by ``part`` or ``cut`` costs
    its own size alone; what is read of ``samples`` itself stays in memory until the next of these.
    """

    samples: Samples
    rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            kind = f"{self.samples.dtype} {self.samples.shape}"
            raise ValueError(f"audio must be float32 of shape (samples,), not {kind}")

    @property
    def duration(self) -> Seconds:
        return len(self.samples) / self.rate

    def cut(self, span: Span) -> Audio:
        """The part within ``span``, clipped to what there is: a view, or a copy where the samples lie in a file."""
        return Audio(self.part(round(span.start * self.rate), round(span.end * self.rate)), self.rate)

    def part(self, first: int, stop: int) -> Samples:
        """The samples from ``first`` to before ``stop``, clipped to what there is: a view, or a copy as in ``cut``."""
        piece = self.samples[max(first, 0) : max(stop, 0)]
        mapped: object = self.samples.base
        if not isinstance(mapped, mmap.mmap):
            return piece
        copied = piece.copy()
        if hasattr(mmap, "MADV_DONTNEED"):  # else each page that was ever read would count as this process's memory
            mapped.madvise(mmap.MADV_DONTNEED)
        return copied


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One speaker speaking without a pause that counts. Turns of different speakers may overlap."""

    span: Span
    speaker: str


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerActivity:
    """How sure the diarizer is, frame by frame, that each speaker speaks."""

    scores: NDArray[np.float32]
    """Shape (frames, speakers), 0..1; columns in the order of ``Diarization.speakers``."""

    step: Seconds
    """Time from one frame to the next; frame ``i`` covers ``step`` seconds from ``start + i * step``."""

    start: Seconds = 0.0
    """Where frame 0 starts."""

    def mean(self, span: Span) -> NDArray[np.float32]:
        """The mean score of each speaker over the frames that ``span`` touches (at least one), shape (speakers,)."""
        frames = len(self.scores)
        if frames == 0:
            return np.zeros(self.scores.shape[1], dtype=np.float32)
        # a thousandth of a frame either way: 0.3 / 0.1 is a hair below 3
        first = min(max(math.floor((span.start - self.start) / self.step + 1e-3), 0), frames - 1)
        last = min(max(math.ceil((span.end - self.start) / self.step - 1e-3), first + 1), frames)
        mean: NDArray[np.float32] = self.scores[first:last].mean(axis=0, dtype=np.float32)
        return mean


@dataclass(frozen=True, slots=True, eq=False)
class Diarization:
    """Who spoke when."""

    turns: tuple[Turn, ...] = ()
    """In order of start; turns of different speakers may overlap, those of one speaker do not."""

    embeddings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """One voice per row, shape (speakers, values), in the order of ``speakers``; without values where the diarizer
    knows no voices."""

    activity: SpeakerActivity | None = None
    """Frame-level evidence, where the diarizer has it."""

    diarizer: str = ""
    """The name of the diarizer that found it."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Labels in the order in which they first speak."""
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns))

    def exclusive(self) -> tuple[Turn, ...]:
        """Turns without overlap: where several speak, the one who began to speak last keeps the floor until done.

        Of those who began at the same moment the one with the shorter turn comes first, so that both are heard.
        """
        edges = sorted({edge for turn in self.turns for edge in (turn.span.start, turn.span.end)})
        pending = deque(sorted(turn for turn in self.turns if turn.span.duration > 0))
        speaking: list[tuple[Seconds, Seconds, str]] = []  # heap of (-start, end, speaker): the first has the floor
        joined: list[Turn] = []
        for start, end in pairwise(edges):
            while pending and pending[0].span.start <= start:
                turn = pending.popleft()
                heappush(speaking, (-turn.span.start, turn.span.end, turn.speaker))
            while speaking and speaking[0][1] <= start:
                heappop(speaking)
            if not speaking:
                continue
            speaker = speaking[0][2]
            if joined and joined[-1].speaker == speaker and joined[-1].span.end == start:
                joined[-1] = Turn(Span(joined[-1].span.start, end), speaker)
            else:
                joined.append(Turn(Span(start, end), speaker))
        return tuple(joined)


@dataclass(frozen=True, slots=True)
class RecognizedWord:
    """A word as the recogniser gives it: no speaker yet."""

    text: str
    """As written, with the white space before it where the language has any: texts joined give the sentence."""

    span: Span
    confidence: float
    """The recogniser's probability, 0..1."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was said."""

    words: tuple[RecognizedWord, ...] = ()
    """In order of start."""

    language: str | None = None
    """ISO 639-1, or None where nothing was said."""

    language_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its one speaker."""

    text: str
    """As written, with the white space before it: texts joined give the sentence."""

    span: Span
    speaker: str
    confidence: float
    """The recogniser's probability, 0..1."""

    speaker_confidence: float
    """The probability that it is this speaker's, 0..1: of many words with 0.9, about nine in ten are."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Words that one speaker says in one go. Never empty."""

    words: tuple[Word, ...]

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("an utterance needs at least one word")
        if any(word.speaker != self.speaker for word in self.words):
            raise ValueError("an utterance has one speaker")

    @property
    def speaker(self) -> str:
        return self.words[0].speaker

    @property
    def span(self) -> Span:
        return Span(self.words[0].span.start, max(word.span.end for word in self.words))

    @property
    def text(self) -> str:
        return "".join(word.text for word in self.words).strip()

    def renamed(self, speaker: str) -> Utterance:
        """The same words, said by ``speaker``."""
        return Utterance(tuple(replace(word, speaker=speaker) for word in self.words))


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one stage took."""

    stage: TimedStage
    seconds: Seconds


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Transcript:
    """Who said what, when."""

    utterances: tuple[Utterance, ...]
    """In order of start."""

    diarization: Diarization
    duration: Seconds
    """Of the decoded recording."""

    language: str | None
    language_probability: float | None
    engine: str
    timings: tuple[Timing, ...]
    recognizer: str = ""
    """The model that found the words."""

    device: str = "cpu"
    """What the engine ran on."""

    speakers_confidence: float | None = None
    """The probability that exactly this many people speak, 0..1; None where the number was given, or nobody can say."""

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for utterance in self.utterances for word in utterance.words)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Labels of all who speak, in the order of their words; those of whom no word was recognised come last."""
        return tuple(dict.fromkeys((*(u.speaker for u in self.utterances), *self.diarization.speakers)))


@dataclass(frozen=True, slots=True)
class SpeakerHints:
    """What the caller knows of the number of speakers; all may be unknown.

    Raises:
        InvalidOption: not a whole number from 1 to ``MAX_SPEAKERS``, or one that contradicts another.
    """

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_speakers", "min_speakers", "max_speakers"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and 1 <= value <= MAX_SPEAKERS):
                raise InvalidOption(f"{name} must be a whole number from 1 to {MAX_SPEAKERS}, not {value!r}")
        if self.num_speakers is not None:
            if not self.least <= self.num_speakers <= self.most:
                raise InvalidOption("num_speakers contradicts min_speakers or max_speakers: give one or the other")
        elif self.least > self.most:
            raise InvalidOption(f"min_speakers ({self.min_speakers}) is above max_speakers ({self.max_speakers})")

    @property
    def least(self) -> int:
        return self.min_speakers or 1

    @property
    def most(self) -> int:
        return self.max_speakers or MAX_SPEAKERS

    def bounds(self) -> tuple[int, int | None]:
        """The least number of speakers, and the most where one is known."""
        if self.num_speakers is not None:
            return self.num_speakers, self.num_speakers
        return self.least, self.max_speakers


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What a caller may ask of the pipeline."""

    hints: SpeakerHints = SpeakerHints()
    language: str | None = None
    """ISO 639-1 of the words, or None to detect it."""

    channels: ChannelMode = "mix"
    """``mix``: all channels as one; ``separate``: each channel is one speaker (calls with a party a channel).

    Separate channels leave nothing to guess, so hints beside them are refused with ``InvalidOption``.
    """

    def __post_init__(self) -> None:
        if self.channels == "separate" and self.hints != SpeakerHints():
            raise InvalidOption("channels=separate makes each channel one speaker: leave the numbers of speakers out")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as shown to users."""

    name: str
    role: str
    """``segmentation``, ``embedding``, ``recognition``, ``diarization`` or ``vad``."""

    licence: str
    state: Literal["missing", "loading", "ready", "error"] = "ready"


def relabel(turns: Iterable[Turn]) -> tuple[dict[str, str], tuple[Turn, ...]]:
    """Old to new names, and the turns in order with speakers named ``SPEAKER_00`` ... as they first speak."""
    ordered = sorted(turns)
    names = {old: f"SPEAKER_{i:02d}" for i, old in enumerate(dict.fromkeys(turn.speaker for turn in ordered))}
    return names, tuple(sorted(replace(turn, speaker=names[turn.speaker]) for turn in ordered))
