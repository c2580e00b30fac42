"""What must hold for every transcript, whatever the recording and the engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from diarist.types import Seconds, Span, Transcript, Word

MAX_OVERLAP_S: Seconds = 0.05
"""Two words of one speaker do not overlap by more."""

MAX_LETTERS_PER_S = 30.0
"""Nobody repeats a phrase faster. The fastest speakers reach about 25 letters per second for a short time."""

MAX_PHRASE_WORDS = 4

MAX_DISTANCE_S: Seconds = 1.0
"""A word is at most this far from the speech of its speaker: a recognizer reads no further."""

EPSILON_S: Seconds = 1e-6


def violations(transcript: Transcript) -> list[str]:
    """Return a sentence for each violation; an empty list if there are none."""
    return [
        *_structure(transcript),
        *_times(transcript),
        *_overlaps(transcript),
        *_speakers(transcript),
    ]


def repetitions(words: Sequence[Word]) -> list[str]:
    """Return the phrases that follow themselves faster than anybody can repeat them: one sound that is there twice."""
    found: list[str] = []
    for length in range(1, MAX_PHRASE_WORDS + 1):
        for at in range(len(words) - 2 * length + 1):
            first, second = words[at : at + length], words[at + length : at + 2 * length]
            letters = _letters(first)
            duration = second[-1].span.end - first[0].span.start
            if letters and letters == _letters(second) and 2 * len(letters) > MAX_LETTERS_PER_S * duration:
                found.append(f"{_show(first)} is there twice within {duration:.2f} s")
    return found


def outside_speech(transcript: Transcript, max_distance: Seconds = MAX_DISTANCE_S) -> list[str]:
    """Return the words that are further than ``max_distance`` from all turns of their speaker."""
    turns: dict[str, list[Span]] = defaultdict(list)
    for turn in transcript.diarization.turns:
        turns[turn.speaker].append(turn.span)
    return [
        f"{_show([word])} is not within the speech of {word.speaker}"
        for word in transcript.words
        if turns and all(word.span.gap(span) > max_distance for span in turns[word.speaker])
    ]


def _structure(transcript: Transcript) -> Iterator[str]:
    for utterance in transcript.utterances:
        if {word.speaker for word in utterance.words} != {utterance.speaker}:
            yield f"{utterance.text!r} has words of several speakers"
        if utterance.text != "".join(word.text for word in utterance.words).strip():
            yield f"{utterance.text!r} is not the text of its words"
        if any(word.span != word.span.clamp(utterance.span.start, utterance.span.end) for word in utterance.words):
            yield f"{utterance.text!r} has words outside of its span"
    for before, after in pairwise(transcript.utterances):
        if after.span.start < before.span.start:
            yield f"{after.text!r} comes after an utterance that starts later"
    expected = tuple(f"SPEAKER_{number:02d}" for number in range(len(transcript.speakers)))
    if transcript.speakers != expected:
        yield f"the speakers are {transcript.speakers}"


def _times(transcript: Transcript) -> Iterator[str]:
    for span in (*(word.span for word in transcript.words), *(turn.span for turn in transcript.diarization.turns)):
        if not -EPSILON_S <= span.start <= span.end <= transcript.duration + EPSILON_S:
            yield f"{span} is not within the recording of {transcript.duration} s"
    for utterance in transcript.utterances:
        for before, after in pairwise(utterance.words):
            if after.span.start < before.span.start:
                yield f"{_show([before, after])} are not in order"


def _overlaps(transcript: Transcript) -> Iterator[str]:
    latest: dict[str, Word] = {}
    for word in sorted(transcript.words, key=lambda word: word.span):
        before = latest.get(word.speaker)
        if before is not None and before.span.end > word.span.start + MAX_OVERLAP_S:
            yield f"{_show([before, word])} overlap, both of {word.speaker}"
        if before is None or word.span.end >= before.span.end:
            latest[word.speaker] = word


def _speakers(transcript: Transcript) -> Iterator[str]:
    known = transcript.diarization.speakers or ("SPEAKER_00",)
    for word in transcript.words:
        if word.speaker not in known:
            yield f"{_show([word])} has the speaker {word.speaker}, who has no turn"
        if not (0 <= word.confidence <= 1 and 0 <= word.speaker_confidence <= 1):
            yield f"{_show([word])} has the confidences {word.confidence} and {word.speaker_confidence}"


def _letters(words: Sequence[Word]) -> str:
    return "".join(char for word in words for char in word.text.casefold() if char.isalnum())


def _show(words: Sequence[Word]) -> str:
    return " ".join(f"{word.text.strip()!r} ({word.span.start:.2f}-{word.span.end:.2f} s)" for word in words)
