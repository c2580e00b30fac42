"""Attribution of words to speakers, and of words to utterances: each word gets exactly one speaker.

Every word is compared with every speaker: how much of it the speaker's turns cover, and how active the speaker is in
its frames. The Viterbi algorithm then finds a path through all words on which a change of speaker has a cost. The cost
is lower after a pause or the end of a sentence, since that is where speakers change, and a single word between two of
another speaker rarely is somebody else's. On ties the current speaker goes on. The confidence of each word's speaker is
the calibrated posterior of the same path; it does not affect the path.

Words may come in sections, as they are recognized. A section's speakers are final: later words start from what was
decided, and change none of it. Sections end at pauses, where later words say little about earlier speakers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.pipeline.confidence_calibration import contested_share, speaker_probability
from diarist.types import Diarization, RecognizedWord, Seconds, Span, Utterance, Word

Floats = NDArray[np.float64]

SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "…")
CLAUSE_ENDS = (",", ";", ":", "、", "，", "；", "：")
CLOSING_MARKS = "\"'”’)] "
"""Characters that may follow the end of a sentence or a clause."""


@dataclass(frozen=True, slots=True)
class SwitchCosts:
    """The costs of a change of speaker between two words, in nats, and the limits of utterances."""

    within: float = 1.5
    """The cost within a phrase."""

    clause: float = 0.7
    """The cost after a comma."""

    sentence: float = 0.1
    """The cost after the end of a sentence."""

    pause: float = 0.3
    """The cost after a pause of ``pause_s`` or more within a sentence."""

    pause_s: Seconds = 0.4

    break_s: Seconds = 1.0
    """A pause of this length ends the utterance."""

    max_utterance_s: Seconds = 30.0
    """A longer utterance ends with its sentence."""


def attribute(
    words: Sequence[RecognizedWord], diarization: Diarization, switch_costs: SwitchCosts = SwitchCosts()
) -> tuple[Utterance, ...]:
    """Assign a speaker to each word, and group words into utterances.

    Args:
        words: Words in order of start.
        diarization: Turns in order of start; without any, all words belong to ``SPEAKER_00``.
        switch_costs: The costs of a change of speaker.

    Returns:
        Utterances in order of start, which contain every word exactly once.
    """
    attribution = Attribution(diarization, switch_costs)
    return (*attribution.add(words), *attribution.finish())


class Attribution:
    """Assigns speakers to words section by section.

    Args:
        diarization: Turns in order of start; without any, all words belong to ``SPEAKER_00``.
        switch_costs: The costs of a change of speaker.
    """

    def __init__(self, diarization: Diarization, switch_costs: SwitchCosts = SwitchCosts()) -> None:
        self._diarization = diarization
        self._switch_costs = switch_costs
        self._open: list[Word] = []
        self._last: tuple[RecognizedWord, ViterbiState] | None = None

    @property
    def open_since(self) -> Seconds | None:
        """The start of the utterance that the next words may still belong to; None if there is none."""
        return self._open[0].span.start if self._open else None

    def add(self, words: Sequence[RecognizedWord]) -> tuple[Utterance, ...]:
        """Return the utterances that end within a section.

        Args:
            words: The words of the section in order of start; none starts before a word of an earlier section.
        """
        if not words:
            return ()
        speakers = self._diarization.speakers or ("SPEAKER_00",)
        evidence = speaker_evidence(words, self._diarization) if self._diarization.turns else np.ones((len(words), 1))
        costs = np.array([_switch_cost(a, b, self._switch_costs) for a, b in itertools.pairwise(words)])
        initial = None
        if self._last is not None:
            last, state = self._last
            initial = state.after(_switch_cost(last, words[0], self._switch_costs))
        path, posterior, state = viterbi(np.log(evidence), costs, initial)
        self._last = words[-1], state
        contested = _contested(words, path, self._diarization)
        confidences = speaker_probability(posterior[np.arange(len(words)), path], contested)
        ended: list[Utterance] = []
        for word, k, confidence in zip(words, path, confidences, strict=True):
            attributed = Word(word.text, word.span, speakers[k], word.confidence, float(confidence))
            if self._open and _starts_utterance(self._open, attributed, self._switch_costs):
                ended.append(Utterance(tuple(self._open)))
                self._open = []
            self._open.append(attributed)
        return tuple(ended)

    def finish(self) -> tuple[Utterance, ...]:
        """Return the last utterance, if there is one, when no more words follow."""
        last, self._open = self._open, []
        return (Utterance(tuple(last)),) if last else ()


def speaker_evidence(words: Sequence[RecognizedWord], diarization: Diarization) -> Floats:
    """Return how well each word fits each speaker: (words, speakers), positive, rows sum to 1."""
    speakers = diarization.speakers
    column = {speaker: k for k, speaker in enumerate(speakers)}
    coverage = np.zeros((len(words), len(speakers)))
    distance = np.full((len(words), len(speakers)), np.inf)
    for k in range(len(speakers)):
        spans = [turn.span for turn in diarization.turns if column[turn.speaker] == k]
        coverage[:, k], distance[:, k] = _coverage([word.span for word in words], spans)
    proximity = np.exp(-np.minimum(distance, 50.0) / 0.25)  # a word in a gap prefers the nearest turn
    score = coverage + 0.1 * proximity
    if diarization.activity is not None:
        score = score + np.stack([diarization.activity.mean(word.span) for word in words])
    score = score + 0.02
    evidence: Floats = score / score.sum(axis=1, keepdims=True)
    return evidence


def _contested(words: Sequence[RecognizedWord], path: NDArray[np.int64], diarization: Diarization) -> Floats:
    if diarization.activity is None or not diarization.turns:
        return np.zeros(len(words))
    return contested_share(np.stack([diarization.activity.mean(word.span) for word in words]), path)


def _coverage(words: Sequence[Span], turns: Sequence[Span]) -> tuple[Floats, Floats]:
    """Return the share of each word that the turns (disjoint, in order) cover, and its distance to the nearest turn."""
    starts = np.array([turn.start for turn in turns])
    ends = np.array([turn.end for turn in turns])
    before = np.concatenate([[0.0], np.cumsum(ends - starts)])
    start = np.array([word.start for word in words])
    end = np.array([max(word.end, word.start + 0.02) for word in words])  # a word of no duration still has a position

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


def _switch_cost(word: RecognizedWord, following: RecognizedWord, costs: SwitchCosts) -> float:
    text = word.text.rstrip(CLOSING_MARKS)
    if text.endswith(SENTENCE_ENDS):
        return costs.sentence
    if following.span.start - word.span.end >= costs.pause_s:
        return costs.pause
    return costs.clause if text.endswith(CLAUSE_ENDS) else costs.within


@dataclass(frozen=True, slots=True, eq=False)
class ViterbiState:
    """Log scores of the speakers at one position between two words, float64 (speakers,)."""

    best: Floats
    """The score of the best path that ends with each speaker."""

    forward: Floats
    """The log sum of the scores of all such paths."""

    def after(self, cost: float) -> ViterbiState:
        """Return the state for the next word, where a change of speaker costs ``cost`` nats."""
        return ViterbiState(np.maximum(self.best, self.best.max() - cost), _transition(self.forward, cost))


def viterbi(
    evidence: Floats, costs: Floats, initial: ViterbiState | None = None
) -> tuple[NDArray[np.int64], Floats, ViterbiState]:
    """Return the best path of speakers, each word's posterior over speakers, and the state after the last word.

    Args:
        evidence: Log scores, (words, speakers).
        costs: The cost of a change of speaker after each word except the last, (words - 1,), in nats.
        initial: The state before the first word, which follows from earlier words whose speakers are decided.

    Returns:
        int64 (words,); (words, speakers) with rows that sum to 1; and the state after the last word, whose speaker is
        then decided.
    """
    count, speakers = evidence.shape
    best, forward = evidence[0].copy(), evidence[0].copy()
    if initial is not None:
        best, forward = best + initial.best, forward + initial.forward
    origin = np.tile(np.arange(speakers), (count, 1))
    forwards = [forward]
    for i in range(1, count):
        top = int(np.argmax(best))
        stay, change = best, best[top] - costs[i - 1]
        origin[i] = np.where(stay >= change, np.arange(speakers), top)
        best = np.maximum(stay, change) + evidence[i]
        forward = _transition(forward, costs[i - 1]) + evidence[i]
        forwards.append(forward)
    backward = np.zeros(speakers)
    posterior = np.empty_like(evidence)
    path = np.empty(count, dtype=np.int64)
    path[-1] = int(np.argmax(best))
    for i in range(count - 1, -1, -1):
        if i < count - 1:
            backward = _transition(backward + evidence[i + 1], costs[i])
            path[i] = origin[i + 1, path[i + 1]]
        joint = forwards[i] + backward
        posterior[i] = np.exp(joint - np.logaddexp.reduce(joint))
    decided = np.where(np.arange(speakers) == path[-1], 0.0, -np.inf)
    return path, posterior, ViterbiState(decided, forward - np.logaddexp.reduce(forward))


def _transition(score: Floats, cost: float) -> Floats:
    """Return the log sum over staying with a speaker and over a change from any speaker."""
    total: Floats = np.logaddexp(score, np.logaddexp.reduce(score) - cost - np.log(len(score)))
    return total


def _starts_utterance(utterance: Sequence[Word], word: Word, costs: SwitchCosts) -> bool:
    """Return whether a word starts a new utterance after the given one."""
    last = utterance[-1]
    if word.speaker != last.speaker or word.span.start - last.span.end >= costs.break_s:
        return True
    long = word.span.end - utterance[0].span.start > costs.max_utterance_s
    return long and last.text.rstrip(CLOSING_MARKS).endswith(SENTENCE_ENDS)
