"""The data that the steps exchange: spans, words, turns, transcripts. They are immutable and do no I/O.

Times are in seconds, as ``float``, from the start of the recording. Any other unit is in the name.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from diarist.channels import ChannelChoice, ChannelMode
from diarist.errors import InvalidOption
from diarist.languages import parse_language
from diarist.system.memory_map import release_pages
from diarist.tracks import AudioTracks, PartialMode, TrackChoice, Truncation, parse_track

Seconds: TypeAlias = float
Samples: TypeAlias = NDArray[np.float32]

SAMPLE_RATE = 16_000
"""The samples per second of all decoded audio."""

Stage: TypeAlias = Literal["decode", "segmentation", "embedding", "clustering", "recognition", "attribution"]
"""The stages that report progress, in the order in which they run."""

TimedStage: TypeAlias = Literal["decode", "diarization", "recognition", "attribution"]
"""The stages whose duration is measured. ``diarization`` covers ``segmentation``, ``embedding`` and ``clustering``,
since not every diarizer has all three."""

Progress: TypeAlias = Callable[[Stage, float], None]
"""Called as ``progress(stage, done)`` with ``done`` in 0..1 of that stage; raises ``Cancelled`` to stop the work."""

StatusProgress: TypeAlias = Callable[[str, float], None]
"""A ``Progress`` that also accepts states outside the pipeline, such as ``download`` or ``loading``."""


MAX_SPEAKERS = 100
"""The maximum number of speakers that a hint may request."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """An interval of time. Spans are ordered by start, then by end.

    Raises:
        ValueError: The end is before the start, or a value is not finite.
    """

    start: Seconds
    end: Seconds

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"span of {self.start} to {self.end} s is not finite")
        if self.end < self.start:
            raise ValueError(f"span ends at {self.end} s, before its start at {self.start} s")

    @property
    def duration(self) -> Seconds:
        """The seconds from start to end."""
        return self.end - self.start

    @property
    def middle(self) -> Seconds:
        """The time halfway between start and end."""
        return (self.start + self.end) / 2

    def overlap(self, other: Span) -> Seconds:
        """Return the seconds that both spans cover; 0 if they only touch or are apart."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))

    def gap(self, other: Span) -> Seconds:
        """Return the seconds between the two spans; 0 if they touch or overlap."""
        return max(0.0, max(self.start, other.start) - min(self.end, other.end))

    def shift(self, by: Seconds) -> Span:
        """Return a span that is ``by`` seconds later."""
        return Span(self.start + by, self.end + by)

    def clamp(self, start: Seconds, end: Seconds) -> Span:
        """Return the nearest span within ``start`` and ``end``."""
        return Span(min(max(self.start, start), end), min(max(self.end, start), end))


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Mono audio: float32 samples of shape (samples,) in -1..1.

    The samples of a long recording are in a file that is mapped into memory. ``part`` and ``cut`` take only the memory
    of what they return; what is read from ``samples`` directly stays in memory until the next such call.
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
        """Return the part within ``span``, clipped to the audio: a view, or a copy if the samples are in a file."""
        return Audio(self.part(round(span.start * self.rate), round(span.end * self.rate)), self.rate)

    def part(self, first: int, stop: int) -> Samples:
        """Return the samples from ``first`` to before ``stop``, clipped to the audio: a view or copy as in ``cut``."""
        part = self.samples[max(first, 0) : max(stop, 0)]
        mapped: object = self.samples.base
        if not isinstance(mapped, mmap.mmap):
            return part
        copied = part.copy()
        release_pages(mapped)
        return copied


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """Continuous speech of one speaker, apart from short pauses. Turns of different speakers may overlap."""

    span: Span
    speaker: str

    @property
    def start(self) -> Seconds:
        """The start of the speech, in seconds from the start of the recording."""
        return self.span.start

    @property
    def end(self) -> Seconds:
        """The end of the speech, in seconds from the start of the recording."""
        return self.span.end


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerActivity:
    """The score of each speaker in each frame: how certain the diarizer is that they speak."""

    scores: NDArray[np.float32]
    """Shape (frames, speakers), 0..1; the columns are in the order of ``Diarization.speakers``."""

    step: Seconds
    """The time from one frame to the next; frame ``i`` covers ``step`` seconds from ``start + i * step``."""

    start: Seconds = 0.0
    """The start of frame 0."""

    def mean(self, span: Span) -> NDArray[np.float32]:
        """Return the mean score of each speaker over the frames that ``span`` touches (at least one), (speakers,)."""
        frames = len(self.scores)
        if frames == 0:
            return np.zeros(self.scores.shape[1], dtype=np.float32)
        # a tolerance of a thousandth of a frame, since 0.3 / 0.1 is slightly below 3
        first = min(max(math.floor((span.start - self.start) / self.step + 1e-3), 0), frames - 1)
        last = min(max(math.ceil((span.end - self.start) / self.step - 1e-3), first + 1), frames)
        mean: NDArray[np.float32] = self.scores[first:last].mean(axis=0, dtype=np.float32)
        return mean


@dataclass(frozen=True, slots=True, eq=False)
class Diarization:
    """Who spoke when: the turns of a recording."""

    turns: tuple[Turn, ...] = ()
    """Turns in order of start. Turns of different speakers may overlap, those of one speaker do not."""

    embeddings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """The embedding of each speaker, shape (speakers, values), in the order of ``speakers``. There are no values if the
    diarizer has no embeddings."""

    activity: SpeakerActivity | None = None
    """The scores of frames, if the diarizer has them."""

    diarizer: str = ""
    """The name of the diarizer."""

    possible_speech: tuple[Span, ...] = ()
    """Time around turns in which somebody may speak, although the diarizer does not count it as speech: ordered,
    disjoint. The recognizer gets it too, and words that it finds there confirm the speech."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """The labels of the speakers in the order in which they first speak."""
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns))

    def exclusive(self) -> tuple[Turn, ...]:
        """Return turns without overlap: while several speak, the turn that started last is kept until its end.

        Of turns that start at the same time the shorter one comes first, so that both are kept.
        """
        edges = sorted({edge for turn in self.turns for edge in (turn.span.start, turn.span.end)})
        pending = deque(sorted(turn for turn in self.turns if turn.span.duration > 0))
        speaking: list[tuple[Seconds, Seconds, str]] = []  # a heap of (-start, end, speaker), whose first entry is kept
        merged: list[Turn] = []
        for start, end in pairwise(edges):
            while pending and pending[0].span.start <= start:
                turn = pending.popleft()
                heappush(speaking, (-turn.span.start, turn.span.end, turn.speaker))
            while speaking and speaking[0][1] <= start:
                heappop(speaking)
            if not speaking:
                continue
            speaker = speaking[0][2]
            if merged and merged[-1].speaker == speaker and merged[-1].span.end == start:
                merged[-1] = Turn(Span(merged[-1].span.start, end), speaker)
            else:
                merged.append(Turn(Span(start, end), speaker))
        return tuple(merged)


@dataclass(frozen=True, slots=True)
class RecognizedWord:
    """A word of the recognizer, without a speaker."""

    text: str
    """The text with the white space before it, if the language has any: joined texts give the sentence."""

    span: Span
    confidence: float
    """The probability of the recognizer, 0..1."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """The recognized words of speech."""

    words: tuple[RecognizedWord, ...] = ()
    """Words in order of start."""

    language: str | None = None
    """The ISO 639-1 code of the language, or None if nothing was said."""

    language_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its speaker."""

    text: str
    """The text with the white space before it: joined texts give the sentence."""

    span: Span
    speaker: str
    confidence: float
    """The probability of the recognizer, 0..1."""

    speaker_confidence: float
    """The probability that the speaker is right, 0..1: of many words with 0.9, about nine in ten are right."""

    @property
    def start(self) -> Seconds:
        """The start of the word, in seconds from the start of the recording."""
        return self.span.start

    @property
    def end(self) -> Seconds:
        """The end of the word, in seconds from the start of the recording."""
        return self.span.end


@dataclass(frozen=True, slots=True)
class Utterance:
    """Consecutive words of one speaker, at least one."""

    words: tuple[Word, ...]

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("an utterance needs at least one word")
        if any(word.speaker != self.speaker for word in self.words):
            raise ValueError("an utterance has one speaker")

    @property
    def speaker(self) -> str:
        """The label of the speaker, such as ``SPEAKER_00``."""
        return self.words[0].speaker

    @property
    def span(self) -> Span:
        """The time from the start of the first word to the end of the last one."""
        return Span(self.words[0].span.start, max(word.span.end for word in self.words))

    @property
    def start(self) -> Seconds:
        """The start of the first word, in seconds from the start of the recording."""
        return self.span.start

    @property
    def end(self) -> Seconds:
        """The end of the last word, in seconds from the start of the recording."""
        return self.span.end

    @property
    def text(self) -> str:
        """The texts of the words, without white space at the ends."""
        return "".join(word.text for word in self.words).strip()

    @property
    def confidence(self) -> float:
        """The mean of the words' confidences, 0..1."""
        return sum(word.confidence for word in self.words) / len(self.words)

    def renamed(self, speaker: str) -> Utterance:
        """Return the same words with another speaker."""
        return Utterance(tuple(replace(word, speaker=speaker) for word in self.words))


@dataclass(frozen=True, slots=True)
class Timing:
    """The duration of one stage."""

    stage: TimedStage
    seconds: Seconds


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Transcript:
    """Who said what and when: the result of the pipeline."""

    utterances: tuple[Utterance, ...]
    """Utterances in order of start."""

    diarization: Diarization
    duration: Seconds
    """The duration of the decoded recording."""

    language: str | None
    language_probability: float | None
    engine: str
    timings: tuple[Timing, ...]
    recognizer: str = ""
    """The model that recognized the words."""

    device: str = "cpu"
    """The device that the engine ran on."""

    speakers_confidence: float | None = None
    """The probability that the number of speakers is right, 0..1; None if the number was given, or if it is unknown."""

    warnings: tuple[str, ...] = ()
    """Sentences for the user about choices that Diarist made for the recording, such as that of another audio track."""

    channels: ChannelChoice | None = None
    """How the channels were used; None if it is unknown, as for transcripts of earlier releases."""

    audio_tracks: AudioTracks | None = None
    """The audio tracks of the file; None if they are unknown."""

    truncation: Truncation | None = None
    """How much of the recording was transcribed, if it was cut off; otherwise None."""

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for utterance in self.utterances for word in utterance.words)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The labels of all speakers in the order of their words; speakers without a recognized word come last."""
        return tuple(dict.fromkeys((*(u.speaker for u in self.utterances), *self.diarization.speakers)))


@dataclass(frozen=True, slots=True)
class SpeakerHints:
    """What the caller knows about the number of speakers; any of it may be unknown.

    Raises:
        InvalidOption: A value is not a whole number from 1 to ``MAX_SPEAKERS``, or contradicts another one.
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
            if not self._lower <= self.num_speakers <= self._upper:
                raise InvalidOption(
                    "num_speakers contradicts min_speakers or max_speakers: give either the number or the bounds"
                )
        elif self._lower > self._upper:
            raise InvalidOption(f"min_speakers ({self.min_speakers}) is above max_speakers ({self.max_speakers})")

    @property
    def _lower(self) -> int:
        return self.min_speakers or 1

    @property
    def _upper(self) -> int:
        return self.max_speakers or MAX_SPEAKERS

    def bounds(self) -> tuple[int, int | None]:
        """Return the minimum number of speakers, and the maximum if it is known."""
        if self.num_speakers is not None:
            return self.num_speakers, self.num_speakers
        return self._lower, self.max_speakers


NO_HINTS = SpeakerHints()


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """The options of a transcription."""

    hints: SpeakerHints = SpeakerHints()
    language: str | None = None
    """The ISO 639-1 code of the language, or None to detect it. It may be given as ``parse_language`` accepts it."""

    channels: ChannelMode = "mix"
    """``mix`` mixes all channels; ``separate`` makes each channel one speaker, for calls with one party per channel;
    ``auto`` makes the choice by the sound of the recording.

    Separate channels give the number of speakers, so ``InvalidOption`` is raised if there are hints as well.
    """

    track: TrackChoice = None
    """The audio track: its number from 1; ``default``; ``best``, the one with most speech; or ``all``, which mixes each
    track and makes it one speaker, and so excludes hints and separate channels. None is the default track, or another
    one if it is silent. A number may also be given as its digits."""

    partial: PartialMode = "refuse"
    """Whether a recording that was cut off is refused, or transcribed as far as it goes (``accept``)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", parse_language(self.language))
        object.__setattr__(self, "track", parse_track(self.track))
        if self.partial not in get_args(PartialMode):
            raise InvalidOption(f"partial must be refuse or accept, not {self.partial!r}")
        if self.channels == "separate" and self.hints != SpeakerHints():
            raise InvalidOption("channels=separate makes each channel one speaker: leave out the numbers of speakers")
        if self.track == "all" and self.channels != "mix":
            raise InvalidOption(
                "track=all mixes the channels of each track, and makes each track one speaker: give track=all or "
                f"channels={self.channels}, but not both"
            )
        if self.track == "all" and self.hints != SpeakerHints():
            raise InvalidOption("track=all makes each audio track one speaker: leave out the numbers of speakers")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as it is shown to users."""

    name: str
    role: str
    """``segmentation``, ``embedding``, ``recognition``, ``diarization`` or ``vad``."""

    licence: str
    state: Literal["missing", "loading", "ready", "error"] = "ready"


def relabel(turns: Iterable[Turn]) -> tuple[dict[str, str], tuple[Turn, ...]]:
    """Name speakers ``SPEAKER_00`` ... as they first speak; return old to new names, and the turns in order."""
    ordered = sorted(turns)
    names = {old: f"SPEAKER_{i:02d}" for i, old in enumerate(dict.fromkeys(turn.speaker for turn in ordered))}
    return names, tuple(sorted(replace(turn, speaker=names[turn.speaker]) for turn in ordered))
