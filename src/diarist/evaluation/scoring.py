"""Scores of a hypothesis against its reference, as counts that can be pooled.

Who speaks when is scored by DER and JER of pyannote.metrics, including overlap. What is said is scored by WER, cpWER
and tcpWER of meeteval, after Whisper's text normalizer (for English, or for all languages). Both together are scored
where speakers change, see ``Score.boundary_words``.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from diarist.errors import ConfigurationError, InvalidOption
from diarist.evaluation.hypotheses import Hypothesis
from diarist.evaluation.normalization import Normalizer, normalizer
from diarist.evaluation.reference import Reference
from diarist.evaluation.segments import Segment
from diarist.types import Diarization, Seconds, Span, Turn

if TYPE_CHECKING:
    from meeteval.io.seglst import SegLST
    from pyannote.core import Annotation

COLLAR: Seconds = 0.25
"""The time on each side of a reference boundary that the lenient DER ignores, as in NIST's evaluations since RT-03."""

WORD_COLLAR: Seconds = 5.0
"""The maximum time error of a word for tcpWER, as in the CHiME challenges."""

BOUNDARY: Seconds = 0.5
"""The maximum distance of a boundary word from a change of speaker."""

MAX_SPEAKERS = 20
"""The maximum number of speakers that meeteval can compare."""

Token: TypeAlias = tuple[str, Segment]
"""A normalized word, and the original word that contains it."""


@dataclass(frozen=True, slots=True)
class Score:
    """Represents a score as counts, which are pooled by adding them.

    All counts are in seconds, except those of words, speakers and recordings. A rate is None if its denominator is
    zero.
    """

    recordings: int = 0
    seconds: Seconds = 0.0
    """The scored duration."""

    took: Seconds = 0.0
    """The processing time of the hypothesis; 0 if it was not measured."""

    speakers: int = 0
    """The number of speakers in the reference."""

    found: int = 0
    """The number of speakers in the hypothesis."""

    exact: int = 0
    """The number of recordings whose number of speakers is correct."""

    speech: Seconds = 0.0
    """The speaking time of all speakers; overlapping speech counts once for each of them."""

    missed: Seconds = 0.0
    false_alarm: Seconds = 0.0
    confusion: Seconds = 0.0

    collar_speech: Seconds = 0.0
    collar_missed: Seconds = 0.0
    collar_false_alarm: Seconds = 0.0
    collar_confusion: Seconds = 0.0

    jaccard_errors: float = 0.0
    """The sum of the Jaccard errors of the reference speakers, each 0..1."""

    jaccard_speakers: int = 0

    words: int = 0
    """The number of normalized words in the reference. It is 0 if there is no text, as are the following counts except
    those of boundary words."""

    word_errors: int = 0
    """The errors of the text without regard to speakers, with all utterances in order of their start."""

    deleted: int = 0
    inserted: int = 0

    speaker_word_errors: int = 0
    """The errors of cpWER: the text of each speaker is compared, with the best pairing of speakers."""

    timed_word_errors: int = 0
    """The errors of tcpWER: like cpWER, but a word must also be within ``WORD_COLLAR`` of its time."""

    boundary_words: int = 0
    """The number of words within ``BOUNDARY`` seconds of a change of speaker that can be evaluated.

    A change of speaker is where one speaker follows another in the reference turns without overlap
    (``Diarization.exclusive``); the end of the first and the start of the second turn both count. If the reference has
    a text, the evaluated words are those of the hypothesis that an alignment (Levenshtein) of all words in order of
    time matches to equal normalized words of the reference. Their time is that of the reference word if it is known
    (``Reference.words``), or else of the hypothesis. Without a text, the evaluated words are those of the hypothesis
    during whose middle someone speaks in the reference.
    """

    boundary_wrong: int = 0
    """The number of boundary words with the wrong speaker.

    Speakers of the hypothesis are mapped one to one to those of the reference with whom they share the most time. With
    a text, a word is wrong if its speaker is not mapped to the one who says it in the reference. Without a text, it is
    wrong if its speaker is not mapped to anyone who speaks during its middle.
    """

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def der(self) -> float | None:
        return _rate(self.missed + self.false_alarm + self.confusion, self.speech)

    @property
    def der_collar(self) -> float | None:
        return _rate(self.collar_missed + self.collar_false_alarm + self.collar_confusion, self.collar_speech)

    @property
    def jer(self) -> float | None:
        return _rate(self.jaccard_errors, self.jaccard_speakers)

    @property
    def wer(self) -> float | None:
        return _rate(self.word_errors, self.words)

    @property
    def cpwer(self) -> float | None:
        return _rate(self.speaker_word_errors, self.words)

    @property
    def tcpwer(self) -> float | None:
        return _rate(self.timed_word_errors, self.words)

    @property
    def boundary_error(self) -> float | None:
        return _rate(self.boundary_wrong, self.boundary_words)

    @property
    def speed(self) -> float | None:
        """The duration of the recording relative to the processing time."""
        return _rate(self.seconds, self.took)


def pool(scores: Iterable[Score]) -> Score:
    """Return the sum of all scores."""
    return sum(scores, Score())


def require() -> None:
    """Check that the packages for scoring are installed.

    Raises:
        ConfigurationError: A package is missing. The message says how to install it.
    """
    try:
        import jiwer  # noqa: F401
        import meeteval  # noqa: F401
        import pyannote.metrics.diarization  # noqa: F401
        import whisper_normalizer.basic  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"scoring needs the bench extra ({error.name} is missing): run pip install 'diarist[bench]',"
            " or pip install -e '.[bench]' in a checkout"
        ) from error


def score(reference: Reference, hypothesis: Hypothesis, *, language: str | None = "en") -> Score:
    """Score a hypothesis against the reference of the recording.

    Args:
        reference: The reference.
        hypothesis: The hypothesis. Words whose middle is outside ``reference.scored``, if that is given, are ignored on
            both sides.
        language: The language of the words (ISO 639-1), which selects their normalizer; None is any language.

    Raises:
        ConfigurationError: The ``bench`` extra is not installed.
        InvalidOption: A text has more than ``MAX_SPEAKERS`` speakers.
    """
    require()
    regions = reference.scored or (Span(0.0, _end(reference, hypothesis)),)
    total = Score(
        recordings=1,
        seconds=sum(region.duration for region in regions),
        took=hypothesis.took,
        speakers=len(reference.speakers),
        found=len({turn.speaker for turn in hypothesis.turns}),
        exact=int(len(reference.speakers) == len({turn.speaker for turn in hypothesis.turns})),
    )
    total += _turns(reference.turns, hypothesis.turns, regions)
    if hypothesis.segments is None:
        return total
    normalize = normalizer(language)
    hypothesis_words = _within(hypothesis.segments, reference.scored)
    if reference.segments is not None:
        total += _words(_within(reference.segments, reference.scored), hypothesis_words, normalize)
    return total + _boundary(reference, hypothesis, normalize)


def _turns(reference: Sequence[Turn], hypothesis: Sequence[Turn], regions: Sequence[Span]) -> Score:
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

    reference_turns, hypothesis_turns = _annotation(reference), _annotation(hypothesis)
    timeline = Timeline([Segment(region.start, region.end) for region in regions])
    strict = DiarizationErrorRate()(reference_turns, hypothesis_turns, uem=timeline, detailed=True)
    # pyannote.metrics expects the total width of the collar.
    lenient = DiarizationErrorRate(collar=2 * COLLAR)(reference_turns, hypothesis_turns, uem=timeline, detailed=True)
    jaccard = JaccardErrorRate()(reference_turns, hypothesis_turns, uem=timeline, detailed=True)
    return Score(
        speech=strict["total"],
        missed=strict["missed detection"],
        false_alarm=strict["false alarm"],
        confusion=strict["confusion"],
        collar_speech=lenient["total"],
        collar_missed=lenient["missed detection"],
        collar_false_alarm=lenient["false alarm"],
        collar_confusion=lenient["confusion"],
        jaccard_errors=jaccard["speaker error"],
        jaccard_speakers=int(jaccard["speaker count"]),
    )


def _words(reference_words: Sequence[Segment], hypothesis_words: Sequence[Segment], normalize: Normalizer) -> Score:
    from meeteval.wer.wer.cp import cp_word_error_rate
    from meeteval.wer.wer.siso import siso_word_error_rate
    from meeteval.wer.wer.time_constrained import time_constrained_minimum_permutation_word_error_rate

    # meeteval's logger, which warns about single long words.
    logging.getLogger("preprocess").setLevel(logging.ERROR)
    for source, segments in (("reference", reference_words), ("hypothesis", hypothesis_words)):
        if (speakers := len({segment.speaker for segment in segments})) > MAX_SPEAKERS:
            raise InvalidOption(f"the {source} has {speakers} speakers with words: at most {MAX_SPEAKERS} are scored")
    overall = siso_word_error_rate(
        *(normalize(" ".join(each.text for each in texts)) for texts in (reference_words, hypothesis_words))
    )
    by_speaker = cp_word_error_rate(
        *(_seglst(_by_speaker(texts), normalize) for texts in (reference_words, hypothesis_words))
    )
    timed = time_constrained_minimum_permutation_word_error_rate(
        _seglst(reference_words, normalize), _seglst(hypothesis_words, normalize), collar=WORD_COLLAR
    )
    return Score(
        words=overall.length,
        word_errors=overall.errors,
        deleted=overall.deletions,
        inserted=overall.insertions,
        speaker_word_errors=by_speaker.errors,
        timed_word_errors=timed.errors,
    )


def _boundary(reference: Reference, hypothesis: Hypothesis, normalize: Normalizer) -> Score:
    changes = _changes(reference.turns)
    hypothesis_words = _within(hypothesis.timed_words, reference.scored)
    if reference.segments is None:
        evaluated = [
            (word.speaker, speaking)
            for word in hypothesis_words
            if _near(changes, word.span) and (speaking := _speaking(reference.turns, word.span.middle))
        ]
        mapping = _speaker_mapping(reference.turns, hypothesis.turns)
    else:
        reference_words = _within(reference.words or reference.segments, reference.scored)
        evaluated = [
            (hypothesis_word.speaker, frozenset((reference_word.speaker,)))
            for reference_word, hypothesis_word in _aligned(
                _tokens(reference_words, normalize), _tokens(hypothesis_words, normalize)
            )
            if _near(changes, reference_word.span if reference.words else hypothesis_word.span)
        ]
        mapping = _speaker_mapping(
            _as_turns(reference.segments), hypothesis.turns or _as_turns(hypothesis.segments or ())
        )
    wrong = sum(mapping.get(speaker) not in speaking for speaker, speaking in evaluated)
    return Score(boundary_words=len(evaluated), boundary_wrong=wrong)


def _aligned(reference_words: Sequence[Token], hypothesis_words: Sequence[Token]) -> list[tuple[Segment, Segment]]:
    """Return the pairs of equal words in an alignment of both texts."""
    if not reference_words or not hypothesis_words:
        return []
    from jiwer import process_words

    reference_text, hypothesis_text = (
        " ".join(token for token, _ in tokens) for tokens in (reference_words, hypothesis_words)
    )
    (chunks,) = process_words(reference_text, hypothesis_text).alignments
    return [
        (reference_words[chunk.ref_start_idx + i][1], hypothesis_words[chunk.hyp_start_idx + i][1])
        for chunk in chunks
        if chunk.type == "equal"
        for i in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def _changes(turns: Sequence[Turn]) -> list[Seconds]:
    exclusive = Diarization(tuple(turns)).exclusive()
    return sorted(
        edge
        for first, second in pairwise(exclusive)
        if first.speaker != second.speaker
        for edge in (first.span.end, second.span.start)
    )


def _near(changes: Sequence[Seconds], span: Span) -> bool:
    first = bisect_left(changes, span.start - BOUNDARY)
    return first < len(changes) and changes[first] <= span.end + BOUNDARY


def _speaking(turns: Sequence[Turn], time: Seconds) -> frozenset[str]:
    return frozenset(turn.speaker for turn in turns if turn.span.start <= time < turn.span.end)


def _speaker_mapping(reference: Sequence[Turn], hypothesis: Sequence[Turn]) -> Mapping[str, str]:
    """Return the reference speaker that each speaker of the hypothesis is mapped to."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    mapping: Mapping[str, str] = DiarizationErrorRate().optimal_mapping(_annotation(reference), _annotation(hypothesis))
    return mapping


def _annotation(turns: Iterable[Turn]) -> Annotation:
    """Convert turns to the type that pyannote's metrics use."""
    from pyannote.core import Annotation, Segment

    annotation = Annotation(uri="recording")
    for index, turn in enumerate(turns):
        annotation[Segment(turn.span.start, turn.span.end), index] = turn.speaker
    return annotation


def _as_turns(segments: Iterable[Segment]) -> tuple[Turn, ...]:
    return tuple(Turn(segment.span, segment.speaker) for segment in segments)


def _tokens(words: Iterable[Segment], normalize: Normalizer) -> list[Token]:
    return [(token, word) for word in words for part in word.text.split() for token in normalize(part).split()]


def _by_speaker(segments: Iterable[Segment]) -> list[Segment]:
    """Return one segment with all words of each speaker, for comparisons that ignore time."""
    texts: dict[str, list[str]] = {}
    for segment in segments:
        texts.setdefault(segment.speaker, []).append(segment.text)
    return [Segment(Span(0.0, 0.0), speaker, " ".join(parts)) for speaker, parts in texts.items()]


def _seglst(segments: Iterable[Segment], normalize: Normalizer) -> SegLST:
    from meeteval.io.seglst import SegLST

    rows = [
        {
            "session_id": "recording",
            "speaker": segment.speaker,
            "start_time": segment.span.start,
            "end_time": segment.span.end,
            "words": text,
        }
        for segment in segments
        if (text := normalize(segment.text))
    ]
    return SegLST(rows)


def _within(segments: Iterable[Segment], regions: Sequence[Span]) -> list[Segment]:
    if not regions:
        return list(segments)
    return [each for each in segments if any(region.start <= each.span.middle <= region.end for region in regions)]


def _end(reference: Reference, hypothesis: Hypothesis) -> Seconds:
    """Return the end of the recording, or the last end of a turn if the duration is unknown."""
    if hypothesis.duration is not None:
        return hypothesis.duration
    return max((turn.span.end for turn in (*reference.turns, *hypothesis.turns)), default=0.0)


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 and math.isfinite(part) else None
