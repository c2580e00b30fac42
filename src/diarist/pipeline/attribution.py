"""Words and turns to utterances: each word gets exactly one speaker.

Every word is weighed against every speaker: how much of it the speaker's turns cover, and how active the speaker is in
its frames. A path through all words is then found (Viterbi) on which a change of speaker costs something, and less
after a pause or the end of a sentence: that is where people hand over, and a lone word between two of one speaker's
rarely is another's. On ties the current speaker keeps the floor. How sure each word's speaker is comes from the same
path's posterior, scaled to what it proved to be worth; it decides nothing.

Words may come in sections, as they are recognised. A section's words are settled with it: those that follow start from
what was decided, and change none of it. Sections end at pauses, where what comes after says little of who spoke before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.pipeline.calibration import contested_share, speaker_probability
from diarist.types import Diarization, RecognizedWord, Seconds, Span, Turn, Utterance, Word

Floats = NDArray[np.float64]

SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "…")
CLAUSE_ENDS = (",", ";", ":", "、", "，", "；", "：")


@dataclass(frozen=True, slots=True)
class SwitchCosts:
    """What a change of speaker between two words costs, in nats, and where utterances break."""

    within: float = 1.5
    """Within a phrase."""

    clause: float = 0.7
    """After a comma."""

    sentence: float = 0.1
    """After the end of a sentence."""

    pause: float = 0.3
    """After a pause of ``pause_s`` or more within a sentence."""

    pause_s: Seconds = 0.4

    break_s: Seconds = 1.0
    """A longer pause ends the utterance."""

    longest: Seconds = 30.0
    """A longer utterance ends with its sentence."""


def attribute(
    words: Sequence[RecognizedWord], diarization: Diarization, handover: SwitchCosts = SwitchCosts()
) -> tuple[Utterance, ...]:
    """Give each word its speaker and join words to utterances.

    Args:
        words: in order of start.
        diarization: turns in order of start; without any, all words are ``SPEAKER_00``'s.
        handover: what a change of speaker costs.

    Returns:
        Utterances in order of start, which hold every word exactly once.
    """
    whole = Attribution(diarization, handover)
    return (*whole.add(words), *whole.finish())


class Attribution:
    """Gives words their speakers section by section.

    Args:
        diarization: turns in order of start; without any, all words are ``SPEAKER_00``'s.
        handover: what a change of speaker costs.
    """

    def __init__(self, diarization: Diarization, handover: SwitchCosts = SwitchCosts()) -> None:
        self._diarization = diarization
        self._handover = handover
        self._open: list[Word] = []
        self._last: tuple[RecognizedWord, ViterbiState] | None = None

    @property
    def open_since(self) -> Seconds | None:
        """Where the utterance starts that the next words may still be part of; None where there is none."""
        return self._open[0].span.start if self._open else None

    def add(self, words: Sequence[RecognizedWord]) -> tuple[Utterance, ...]:
        """The utterances that end within a section.

        Args:
            words: of the section, in order of start, none of them starting before one of an earlier section.
        """
        if not words:
            return ()
        speakers = self._diarization.speakers or ("SPEAKER_00",)
        evidence = weigh(words, self._diarization) if self._diarization.turns else np.ones((len(words), 1))
        costs = np.array([_cost(a, b, self._handover) for a, b in itertools.pairwise(words)])
        entry = None
        if self._last is not None:
            last, standing = self._last
            entry = standing.after(_cost(last, words[0], self._handover))
        path, posterior, standing = decode(np.log(evidence), costs, entry)
        self._last = words[-1], standing
        contested = _contested(words, path, self._diarization)
        sure = speaker_probability(posterior[np.arange(len(words)), path], contested)
        finalized: list[Utterance] = []
        for word, k, probable in zip(words, path, sure, strict=True):
            named = Word(word.text, word.span, speakers[k], word.confidence, float(probable))
            if self._open and _breaks(self._open, named, self._handover):
                finalized.append(Utterance(tuple(self._open)))
                self._open = []
            self._open.append(named)
        return tuple(finalized)

    def finish(self) -> tuple[Utterance, ...]:
        """The last utterance: no more words come."""
        last, self._open = self._open, []
        return (Utterance(tuple(last)),) if last else ()


def weigh(words: Sequence[RecognizedWord], diarization: Diarization) -> Floats:
    """How well each word fits each speaker: (words, speakers), positive, rows sum to 1."""
    speakers = diarization.speakers
    column = {speaker: k for k, speaker in enumerate(speakers)}
    covered = np.zeros((len(words), len(speakers)))
    distance = np.full((len(words), len(speakers)), np.inf)
    for k in range(len(speakers)):
        spans = [turn.span for turn in diarization.turns if column[turn.speaker] == k]
        covered[:, k], distance[:, k] = _cover([word.span for word in words], spans)
    near = np.exp(-np.minimum(distance, 50.0) / 0.25)  # a word in a gap leans to the nearest turn
    score = covered + 0.1 * near
    if diarization.activity is not None:
        score = score + np.stack([diarization.activity.mean(word.span) for word in words])
    score = score + 0.02
    fit: Floats = score / score.sum(axis=1, keepdims=True)
    return fit


def _contested(words: Sequence[RecognizedWord], path: NDArray[np.int64], diarization: Diarization) -> Floats:
    if diarization.activity is None or not diarization.turns:
        return np.zeros(len(words))
    return contested_share(np.stack([diarization.activity.mean(word.span) for word in words]), path)


def _cover(words: Sequence[Span], turns: Sequence[Span]) -> tuple[Floats, Floats]:
    """The share of each word that the turns (disjoint, in order) cover, and its distance to the nearest of them."""
    starts = np.array([turn.start for turn in turns])
    ends = np.array([turn.end for turn in turns])
    before = np.concatenate([[0.0], np.cumsum(ends - starts)])
    start = np.array([word.start for word in words])
    end = np.array([max(word.end, word.start + 0.02) for word in words])  # a word without length still stands somewhere

    def spoken_until(time: Floats) -> Floats:
        at = np.searchsorted(starts, time, side="right")
        inside = np.where(at > 0, np.minimum(time, ends[at - 1]) - starts[at - 1], 0.0)
        total: Floats = np.where(at > 0, before[at - 1] + inside, 0.0)
        return total

    covered = (spoken_until(end) - spoken_until(start)) / (end - start)
    after = np.searchsorted(starts, start, side="right")
    to_previous = np.where(after > 0, start - ends[after - 1], np.inf)
    following = np.searchsorted(starts, start, side="left")
    to_next = np.where(following < len(starts), starts[np.minimum(following, len(starts) - 1)] - end, np.inf)
    return covered, np.maximum(np.minimum(to_previous, to_next), 0.0)


def _cost(word: RecognizedWord, following: RecognizedWord, handover: SwitchCosts) -> float:
    text = word.text.rstrip("\"'”’)] ")
    if text.endswith(SENTENCE_ENDS):
        return handover.sentence
    if following.span.start - word.span.end >= handover.pause_s:
        return handover.pause
    return handover.clause if text.endswith(CLAUSE_ENDS) else handover.within


@dataclass(frozen=True, slots=True, eq=False)
class ViterbiState:
    """What is known of the speaker before a word is heard: log scores, float64 (speakers,)."""

    best: Floats
    """Of the best path that ends with each speaker."""

    forward: Floats
    """Summed over all paths."""

    def after(self, cost: float) -> ViterbiState:
        """As it is for the next word, where a change of speaker costs ``cost`` nats."""
        return ViterbiState(np.maximum(self.best, self.best.max() - cost), _mix(self.forward, cost))


def decode(
    evidence: Floats, costs: Floats, entry: ViterbiState | None = None
) -> tuple[NDArray[np.int64], Floats, ViterbiState]:
    """The best path of speakers, and each word's posterior over speakers.

    Args:
        evidence: log, (words, speakers).
        costs: of a change of speaker after each word but the last, (words - 1,), in nats.
        entry: what the words before, whose speakers are decided, mean for the first of these.

    Returns:
        int64 (words,); (words, speakers) with rows that sum to 1; and how things stand after the last word, whose
        speaker is then decided.
    """
    count, speakers = evidence.shape
    best, forward = evidence[0].copy(), evidence[0].copy()
    if entry is not None:
        best, forward = best + entry.best, forward + entry.forward
    origin = np.tile(np.arange(speakers), (count, 1))
    forwards = [forward]
    for i in range(1, count):
        top = int(np.argmax(best))
        stay, change = best, best[top] - costs[i - 1]
        origin[i] = np.where(stay >= change, np.arange(speakers), top)
        best = np.maximum(stay, change) + evidence[i]
        forward = _mix(forward, costs[i - 1]) + evidence[i]
        forwards.append(forward)
    backward = np.zeros(speakers)
    posterior = np.empty_like(evidence)
    path = np.empty(count, dtype=np.int64)
    path[-1] = int(np.argmax(best))
    for i in range(count - 1, -1, -1):
        if i < count - 1:
            backward = _mix(backward + evidence[i + 1], costs[i])
            path[i] = origin[i + 1, path[i + 1]]
        joint = forwards[i] + backward
        posterior[i] = np.exp(joint - np.logaddexp.reduce(joint))
    decided = np.where(np.arange(speakers) == path[-1], 0.0, -np.inf)
    return path, posterior, ViterbiState(decided, forward - np.logaddexp.reduce(forward))


def _mix(score: Floats, cost: float) -> Floats:
    """Log-sum over staying and over a change from any speaker."""
    total: Floats = np.logaddexp(score, np.logaddexp.reduce(score) - cost - np.log(len(score)))
    return total


def _breaks(group: list[Word], word: Word, handover: SwitchCosts) -> bool:
    last = group[-1]
    if word.speaker != last.speaker or word.span.start - last.span.end >= handover.break_s:
        return True
    long = word.span.end - group[0].span.start > handover.longest
    return long and last.text.rstrip("\"'”’)] ").endswith(SENTENCE_ENDS)


def speech_of(turns: Sequence[Turn], join_s: Seconds = 0.2) -> tuple[Span, ...]:
    """Where anybody speaks: ordered, disjoint spans; gaps shorter than ``join_s`` are closed."""
    spans: list[Span] = []
    for turn in turns:
        if spans and turn.span.start - spans[-1].end < join_s:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, turn.span.end))
        else:
            spans.append(turn.span)
    return tuple(spans)
