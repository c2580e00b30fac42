"""Stretches of speech with words: what references and answers are compared by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diarist.types import Seconds, Span, Transcript, Turn


@dataclass(frozen=True, slots=True)
class Segment:
    """What one speaker says in one go, or one word of it."""

    span: Span
    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system says of a recording, whichever system it is."""

    turns: tuple[Turn, ...]
    """Who speaks when; turns may overlap."""

    stretches: tuple[Segment, ...] | None = None
    """What is said, in order of start; None from a system that finds no words."""

    words: tuple[Segment, ...] = ()
    """The words one by one, in order of start; where there are none, those of ``stretches`` are spread over them."""

    duration: Seconds | None = None
    """Of the recording, where it is known."""

    took: Seconds = 0.0
    """How long the answer took; 0 where that was not measured."""

    @property
    def timed_words(self) -> tuple[Segment, ...]:
        """``words``, or the best guess at them."""
        return self.words or distribute(self.stretches or ())


def answer_of(transcript: Transcript, took: Seconds = 0.0) -> Answer:
    """What Diarist itself says."""
    return Answer(
        transcript.diarization.turns,
        tuple(Segment(said.span, said.speaker, said.text) for said in transcript.utterances),
        tuple(Segment(word.span, word.speaker, word.text.strip()) for word in transcript.words),
        transcript.duration,
        took,
    )


def distribute(stretches: Iterable[Segment]) -> tuple[Segment, ...]:
    """The words of each stretch, laid over its time by their number of characters, in order of start."""
    words: list[Segment] = []
    for stretch in stretches:
        texts = stretch.text.split()
        characters, said = sum(map(len, texts)), 0
        for text in texts:
            edges = (said / characters, (said + len(text)) / characters)
            start, end = (stretch.span.start + share * stretch.span.duration for share in edges)
            words.append(Segment(Span(start, max(start, end)), stretch.speaker, text))
            said += len(text)
    return tuple(sorted(words, key=lambda word: word.span))
