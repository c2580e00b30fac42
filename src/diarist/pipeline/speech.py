"""Speech that is recognized: turns and possible speech. Words in possible speech extend the turns of their speaker."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from diarist.types import Diarization, Seconds, Span, Turn, Utterance

MIN_PAUSE_S: Seconds = 0.4
"""A shorter pause between a turn and a word of its speaker is part of the turn."""

MIN_CONFIDENCE = 0.5
"""A word with less confidence does not confirm that somebody speaks."""


def spans_of_speech(diarization: Diarization) -> tuple[Span, ...]:
    """Return the spans of turns and of possible speech in order of start; they may overlap."""
    return tuple(sorted((*(turn.span for turn in diarization.turns), *diarization.possible_speech)))


def merged_speech(spans: Iterable[Span], min_gap: Seconds = 0.2) -> tuple[Span, ...]:
    """Merge spans in order of start into disjoint ones; gaps shorter than ``min_gap`` are closed."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start - merged[-1].end < min_gap:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)


class ConfirmedSpeech:
    """Collects the words of a channel that were found in its possible speech, and extends its turns over them.

    Args:
        diarization: The diarization of the channel.
    """

    def __init__(self, diarization: Diarization) -> None:
        self._diarization = diarization
        self._spans: dict[str, list[Span]] = defaultdict(list)

    def add(self, utterances: Iterable[Utterance]) -> None:
        """Add utterances, with the names of the speakers of the diarization."""
        possible = self._diarization.possible_speech
        for utterance in utterances if possible else ():
            for word in utterance.words:
                at = bisect_right(possible, word.span.middle, key=lambda span: span.start) - 1
                if at >= 0 and word.span.middle < possible[at].end and word.confidence >= MIN_CONFIDENCE:
                    confirmed = word.span.clamp(possible[at].start, possible[at].end)
                    self._spans[utterance.speaker].append(confirmed)

    def extended(self) -> Diarization:
        """Return the diarization with turns that contain the confident words, as far as speech is possible."""
        if not self._spans:
            return self._diarization
        by_speaker: dict[str, list[Span]] = {speaker: [] for speaker in self._diarization.speakers}
        for turn in self._diarization.turns:
            by_speaker[turn.speaker].append(turn.span)
        turns = [
            Turn(span, speaker)
            for speaker, spans in by_speaker.items()
            for span in _extended(spans, self._spans.get(speaker, ()))
        ]
        return _with_turns(self._diarization, turns)


def _extended(turns: Sequence[Span], words: Sequence[Span]) -> Sequence[Span]:
    """Merge words with each other and with turns; pauses between turns stay."""
    extended: list[Span] = []
    after_word = False
    for span, is_word in sorted((*((turn, False) for turn in turns), *((word, True) for word in words))):
        if extended and span.start - extended[-1].end < (MIN_PAUSE_S if is_word or after_word else 0.0):
            after_word = is_word if span.end >= extended[-1].end else after_word
            extended[-1] = Span(extended[-1].start, max(extended[-1].end, span.end))
        else:
            extended.append(span)
            after_word = is_word
    return extended


def _with_turns(diarization: Diarization, turns: Iterable[Turn]) -> Diarization:
    """Return the diarization with other turns of the same speakers."""
    changed = replace(diarization, turns=tuple(sorted(turns)))
    rows = [diarization.speakers.index(speaker) for speaker in changed.speakers]
    activity = diarization.activity
    if activity is not None:
        activity = replace(activity, scores=activity.scores[:, rows])
    return replace(changed, embeddings=diarization.embeddings[rows], activity=activity)
